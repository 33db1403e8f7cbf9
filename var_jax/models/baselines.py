"""Transformers that VAR is compared with, built on its blocks from outside; `var-jax ablate` trains them.

- Raster order ("previous_token"): one scale's tokens, one after another, row by row. Training has a causal mask in the
  place of the block-causal one, and each position's input is the code of the token before it. A step of sampling draws
  one token and writes the cache at a traced position, so that all steps are one loop.
- "last_scale": a scale's input is the contribution of the scale before it alone, not the sum of all coarser ones.
- No AdaLN: norms have learned scales and shifts that are the same for all classes, and branches have no gates.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from var_jax.errors import InputError
from var_jax.models.attention import xla_attention
from var_jax.models.block import Declarations
from var_jax.models.config import config_from_dict, require_switch
from var_jax.models.parameters import Params
from var_jax.models.precision import precision_for, widened
from var_jax.models.quantizer import Quantizer
from var_jax.models.transformer import Cache, Conditioning, Transformer, written
from var_jax.models.transformer_config import TransformerConfig

CUMULATIVE = "cumulative"  # the sum of all coarser scales, downsampled to this one (VAR)
LAST_SCALE = "last_scale"
PREVIOUS_TOKEN = "previous_token"
INPUTS = (CUMULATIVE, LAST_SCALE, PREVIOUS_TOKEN)
_PLAIN = {"adaln": True, "inputs": CUMULATIVE}  # VAR's own, which no description of a model mentions


@dataclasses.dataclass(frozen=True)
class BaselineConfig(TransformerConfig):
    """A transformer that differs from VAR's.

    Attributes:
      adaln: False for norms that do not depend on the class.
      inputs: one of `INPUTS`.

    Raises:
      InputError: naming the field that cannot be.
    """

    adaln: bool = True
    inputs: str = CUMULATIVE

    def __post_init__(self) -> None:
        super().__post_init__()
        require_switch("transformer", "adaln", self.adaln)
        if self.shared_adaln and not self.adaln:
            raise InputError("transformer shared_adaln: there is none to share without adaln, choose one")
        if self.inputs not in INPUTS:
            raise InputError(f"transformer inputs '{self.inputs}': expected one of {', '.join(INPUTS)}")
        if self.raster and len(self.pyramid) > 1:
            raise InputError(f"transformer inputs 'previous_token': need a tokenizer of one scale, not {self.pyramid}")

    @property
    def raster(self) -> bool:
        """Whether tokens follow one after another, row by row."""
        return self.inputs == PREVIOUS_TOKEN

    @property
    def steps(self) -> tuple[int, ...]:
        """Tokens drawn at once in each step of sampling."""
        return (1,) * self.pyramid.length if self.raster else super().steps

    @property
    def mask_LxL(self) -> np.ndarray:
        """True where the row's position may look at the column's, in training."""
        return np.tril(np.ones((self.pyramid.length,) * 2, bool)) if self.raster else super().mask_LxL

    @property
    def modulation_size(self) -> int:
        """Weights that turn a class into scales, shifts and gates."""
        return super().modulation_size if self.adaln else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON, without those that are VAR's own."""
        return {name: value for name, value in super().to_dict().items() if (name, value) not in _PLAIN.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BaselineConfig:
        """Inverse of `to_dict`; an unknown or missing field is an error that names it."""
        return config_from_dict(cls, {"input_init": 1.0, **_PLAIN, **values}, "transformer")


def transformer_config_from(values: dict[str, Any]) -> TransformerConfig:
    """The config of the kind that these plain values describe.

    Raises:
      InputError: naming an unknown or missing field, or one that cannot be.
    """
    if all(values.get(name, plain) == plain for name, plain in _PLAIN.items()):
        return TransformerConfig.from_dict({name: value for name, value in values.items() if name not in _PLAIN})
    return BaselineConfig.from_dict(values)


def make_transformer(config: TransformerConfig, *options: Any, **named: Any) -> Transformer:
    """The network of a config, with the other attributes of `Transformer`."""
    kind: type[Transformer] = BaselineTransformer if isinstance(config, BaselineConfig) else Transformer
    return kind(config, *options, **named)


class BaselineTransformer(Transformer):
    """The network of a `BaselineConfig`."""

    config: BaselineConfig

    @nn.nowrap
    def modulation_declarations(self) -> Declarations:
        """Without AdaLN: scales and shifts of both norms of a block."""
        if self.config.adaln:
            return super().modulation_declarations()
        return {"adaln_norms": (nn.initializers.zeros, (4, self.config.width))}

    @nn.nowrap
    def setup_condition(self) -> None:
        """Without AdaLN: the last norm's scale and shift."""
        if self.config.adaln:
            super().setup_condition()
        else:
            self.head_adaln_bias = self.param("head_adaln_bias", nn.initializers.zeros, (2, self.config.width))

    def condition(self, labels_B: jax.Array) -> Conditioning:
        """The vectors that the classes give to every layer; without AdaLN all classes give the same."""
        if self.config.adaln:
            return super().condition(labels_B)
        for_all = lambda x: jnp.broadcast_to(x, (*x.shape[:-3], len(labels_B), *x.shape[-2:]))
        gates_Dx2xW = jnp.ones((self.config.depth, 2, self.config.width))
        vectors = jnp.concatenate([gates_Dx2xW, self.blocks()["adaln_norms"]], axis=1)
        start_BxW = jnp.take(self.class_embedding, labels_B, axis=0)
        return Conditioning(start_BxW, for_all(vectors[:, None]), for_all(self.head_adaln_bias[None]))

    @nn.nowrap
    def scale_input(self, quantizer: Quantizer, f_hat_BxhxwxC: jax.Array, contribution: jax.Array, k: int) -> jax.Array:
        """See `Transformer`."""
        given = contribution if self.config.inputs == LAST_SCALE else f_hat_BxhxwxC
        return super().scale_input(quantizer, given, contribution, k)

    @nn.nowrap
    def teacher_inputs(self, quantizer: Quantizer, tokens_BxL: jax.Array) -> jax.Array:
        """See `Transformer`."""
        if self.config.raster:
            return widened(quantizer.embed(tokens_BxL[:, :-1]))
        if self.config.inputs == CUMULATIVE:
            return super().teacher_inputs(quantizer, tokens_BxL)
        pyramid, parts = quantizer.pyramid, []
        for k in range(len(pyramid) - 1):
            contribution = quantizer.contribution(quantizer.embed(tokens_BxL[:, pyramid.slice(k)]), k)
            parts.append(quantizer.next_scale_input(contribution, k + 1))
        empty = jnp.zeros((len(tokens_BxL), 0, self.config.code_width), jnp.float32)
        return jnp.concatenate([empty, *parts], axis=1)

    # Sampling in raster order.

    def empty_inputs(self) -> jax.Array:
        """[L, W] float32: the inputs of each position before a code is added; the first position never has one."""
        c = self.config
        codes = jnp.zeros((1, c.pyramid.length - 1, c.code_width), jnp.float32)
        rest = self.embed_codes(codes, slice(1, c.pyramid.length))[0]
        return jnp.concatenate([jnp.zeros((1, c.width), rest.dtype), rest])

    def project_code(self, codes_BxC: jax.Array) -> jax.Array:
        """[B, 1, W] float32: a token's code as it enters the inputs of the next position."""
        codes = widened(codes_BxC)
        return jnp.einsum("bc,cw->bw", codes, self.word_kernel, precision=precision_for(codes.dtype))[:, None]

    def raster_step(
        self, x_Bx1xW: jax.Array, position: jax.Array, conditioning: Conditioning, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Logits [B, 1, V] float32 of the token at `position` (traced), and the cache with its keys.

        Attention is over all L places of the cache, those to come masked: the loop's shapes must not change, and a
        step is bound by reading weights and cache anyway.
        """
        seen_1xL = jnp.arange(self.config.pyramid.length)[None] <= position

        def layer(carry: tuple[jax.Array, Cache], params: Params, modulation: jax.Array, index: jax.Array) -> Any:
            x, cache = carry

            def attend(q: jax.Array, new_k: jax.Array, new_v: jax.Array) -> tuple[jax.Array, Cache]:
                grown = written(cache, Cache(new_k, new_v), index, position)
                k, v = (jax.lax.dynamic_index_in_dim(part, index, keepdims=False) for part in grown)
                return xla_attention(q, k, v, seen_1xL), grown

            return self.block(params, x, modulation, attend)

        carry = x_Bx1xW.astype(self.dtype), cache
        x, cache = self.backend.sampling_layers(layer, carry, self.block_params(), conditioning.blocks_DxBx6xW)
        return self.logits(x, conditioning), cache
