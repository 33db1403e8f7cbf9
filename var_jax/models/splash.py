"""Attention on TPUs by the `splash` kernel: block by block in the chip's fast memory, skipping masked blocks.

No matrix of all scores exists, neither forward nor backward: kept for the gradient are the inputs, the result and
one number per row. The kernel runs on one device and in tests in Pallas' interpreter; over a mesh see
`parallel.rules.PerDevice`.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as splash

from var_jax.errors import InputError
from var_jax.models.recompute import ATTENTION

_LANES = 128  # rows of the chip's registers: blocks are multiples of it
_LARGEST_COMPUTE = 256  # keys of a block that are scored at once, limited by the backward pass
_Array = TypeVar("_Array", jax.Array, np.ndarray)


@dataclasses.dataclass(frozen=True)
class Splash:
    """The attention kind "splash", for masks by which every query sees the first n keys, n being its own.

    The sequence is padded to a multiple of 128 at its front: the finest scale, which is the longest, then ends where
    a block ends and tends to begin where one begins, and more blocks lie wholly under the mask (see `visited`).

    Attributes:
      block_q: queries per block, at most; the largest multiple of 128 that divides the padded length is taken.
      block_kv: keys per block, at most, in the same way.
      interpret: run it in Pallas' interpreter, on any device; for tests.

    Raises:
      InputError: for a block that is no multiple of 128.
    """

    block_q: int = 384
    block_kv: int = 768
    interpret: bool = False

    def __post_init__(self) -> None:
        for name in ("block_q", "block_kv"):
            value = getattr(self, name)
            if value < _LANES or value % _LANES:
                raise InputError(f"splash {name} is {value}: expected a positive multiple of {_LANES}")

    def __call__(
        self, q_BxLxHxK: jax.Array, k_BxLxHxK: jax.Array, v_BxLxHxK: jax.Array, mask_LxL: np.ndarray
    ) -> jax.Array:
        """See `models.attention.AttentionFn`; scores, softmax and sums are float32."""
        mask = PrefixMask.padded(mask_LxL)
        kernel = splash.make_splash_mha_single_device(
            splash.MultiHeadMask([mask]),
            block_sizes=self._blocks(mask.shape[0]),
            residual_checkpoint_name=ATTENTION,
            interpret=self.interpret,
        )
        batch, length, heads, width = q_BxLxHxK.shape
        inputs = [_heads_first(x, mask.hidden) for x in (q_BxLxHxK, k_BxLxHxK, v_BxLxHxK)]
        out_BHxPxK = kernel(*inputs)[:, mask.hidden :]  # one mask for all, so that pictures count as heads
        return out_BHxPxK.reshape(batch, heads, length, width).swapaxes(1, 2)

    def visited(self, mask_LxL: np.ndarray) -> tuple[int, int]:
        """Blocks of scores that are computed, and those that there are."""
        mask = PrefixMask.padded(mask_LxL)
        blocks, total = self._blocks(mask.shape[0]), mask.shape[0]
        tiles = mask[:, :].reshape(total // blocks.block_q, blocks.block_q, total // blocks.block_kv, blocks.block_kv)
        seen = tiles.any(axis=(1, 3))
        return int(seen.sum()), seen.size

    def _blocks(self, padded: int) -> splash.BlockSizes:
        """Blocks for a padded length; one backward kernel gives all three gradients.

        Positions are the last axis in memory, whose rows of 128 a head's 64 numbers would fill by half.
        """
        block_q, block_kv = _dividing(padded, self.block_q), _dividing(padded, self.block_kv)
        compute = _dividing(block_kv, _LARGEST_COMPUTE)
        return splash.BlockSizes(
            block_q=block_q,
            block_kv=block_kv,
            block_kv_compute=compute,
            block_q_dkv=block_q,
            block_kv_dkv=block_kv,
            block_kv_dkv_compute=compute,
            use_fused_bwd_kernel=True,
            q_layout=splash.QKVLayout.SEQ_MINOR,
            k_layout=splash.QKVLayout.SEQ_MINOR,
            v_layout=splash.QKVLayout.SEQ_MINOR,
        )


class PrefixMask(splash.Mask):
    """A mask that the kernel computes by itself: a query sees the keys from `hidden` to its own last one.

    Attributes:
      hidden: positions of padding at the front, which nothing sees but, to have something to see, the first
        true key.
      q_sequence: [P] int32, the last key that each query sees; the kernel hands it to `mask_function`.
    """

    def __init__(self, hidden: int, last_P: np.ndarray) -> None:
        self.hidden, self.q_sequence = hidden, last_P.astype(np.int32)

    @classmethod
    def padded(cls, mask_LxL: np.ndarray) -> PrefixMask:
        """From a block-causal mask, padded at the front to a multiple of 128.

        Raises:
          InputError: if some query does not see just the first n keys, n > 0.
        """
        length = mask_LxL.shape[0]
        seen_L = mask_LxL.sum(axis=1)
        if not seen_L.all() or not np.array_equal(mask_LxL, np.arange(mask_LxL.shape[1]) < seen_L[:, None]):
            raise InputError("splash attention: expected a mask by which every query sees the first keys, one at least")
        hidden = -length % _LANES
        return cls(hidden, np.concatenate([np.zeros(hidden), seen_L - 1]) + hidden)

    @property
    def shape(self) -> tuple[int, int]:
        """(P, P)."""
        return self.q_sequence.size, self.q_sequence.size

    def mask_function(self, last: _Array, keys: _Array) -> _Array:
        """Whether queries whose last keys are `last` see `keys`."""
        seen = keys <= last
        return seen & (keys >= self.hidden) if self.hidden else seen

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        rows, columns = index
        return self.mask_function(self.q_sequence[rows][:, None], np.arange(self.shape[1])[columns][None])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrefixMask) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[int, bytes]:
        return self.hidden, self.q_sequence.tobytes()


def _dividing(length: int, largest: int) -> int:
    """The largest multiple of 128 that divides `length`, itself one, and is at most `largest`."""
    return max(size for size in range(_LANES, largest + 1, _LANES) if length % size == 0)


def _heads_first(x_BxLxHxK: jax.Array, hidden: int) -> jax.Array:
    """[B H, hidden + L, K], the first positions zero."""
    batch, length, heads, width = x_BxLxHxK.shape
    x = x_BxLxHxK.swapaxes(1, 2).reshape(batch * heads, length, width)
    return jnp.pad(x, ((0, 0), (hidden, 0), (0, 0)))
