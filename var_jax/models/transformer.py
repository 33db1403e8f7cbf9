"""The VAR transformer: predicts every token of a scale at once from the coarser scales and a class.

Blocks are stacked: every parameter of `blocks` has the layers as its first axis, and one loop runs over them, in
training and in sampling alike. Parameters are float32; `dtype` is the compute type; norms, softmax and logits are
float32. The way a device computes and the way arrays are placed on a mesh come in as functions: `backend` and
`constrain(x, name)`.

Training and sampling differ in the keys that a query can see: in training the block-causal mask hides finer
scales, in sampling they do not exist yet and a cache holds the coarser ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from var_jax.errors import InputError
from var_jax.models.attention import xla_attention
from var_jax.models.backend import XLA, Backend
from var_jax.models.block import GATE_ATTENTION, GATE_MLP, Block, Blocks, Declarations, initial_std, modulate
from var_jax.models.constraint import Constrain, identity
from var_jax.models.parameters import Params
from var_jax.models.precision import Dtype, at_least_float32, precision_for, widened
from var_jax.models.quantizer import Quantizer
from var_jax.models.transformer_config import TransformerConfig


class Conditioning(NamedTuple):
    """Everything that the network reads of a class, computed once per picture.

    Attributes:
      start_BxW: class embedding, added to the first scale's positions.
      blocks_DxBx6xW: gates, scales and shifts of every block.
      head_Bx2xW: scale and shift before the head.
    """

    start_BxW: jax.Array
    blocks_DxBx6xW: jax.Array
    head_Bx2xW: jax.Array


class Cache(NamedTuple):
    """Keys and values of positions already sampled: [D, B, N, H, K]."""

    k: jax.Array
    v: jax.Array


def new_cache(config: TransformerConfig, batch: int, dtype: Dtype, length: int | None = None) -> Cache:
    """An empty cache of `length` positions; None: of every scale but the finest, which no later scale looks back at."""
    if length is None:
        length = config.pyramid.length - config.pyramid.lengths[-1]
    shape = (config.depth, batch, length, config.num_heads, config.head_width)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


class Transformer(nn.Module):
    """The network over a pyramid of tokens.

    Attributes:
      config: sizes and choices of the architecture.
      dtype: compute type.
      backend: how layers, products and attention are computed, see `models.backend`.
      constrain: sharding constraint by name: "sequence" [B, L, W], "heads" [B, L, H, K],
        "hidden" [B, L, M], "logits" [B, L, V], and kernels as they are used, by their parameters' names.
      remat: name of a policy of `models.recompute` ("nothing_saveable": recompute every block in the
        backward pass), or None to keep everything but an activation that is cheap to make again.
    """

    config: TransformerConfig
    dtype: Dtype = jnp.float32
    backend: Backend = XLA
    constrain: Constrain = identity
    remat: str | None = None

    def setup(self) -> None:
        c = self.config
        std = initial_std(c)
        normal, zeros, width = nn.initializers.normal(std), nn.initializers.zeros, c.width
        self.word_kernel = self.param("word_kernel", nn.initializers.normal(c.input_init * std), (c.code_width, width))
        self.word_bias = self.param("word_bias", zeros, (width,))
        self.class_embedding = self.param("class_embedding", normal, (c.num_classes + 1, width))
        self.start_position = self.param("start_position", normal, (c.start_length, width))
        self.position_embedding = self.param("position_embedding", normal, (c.pyramid.length, width))
        self.level_embedding = self.param("level_embedding", normal, (len(c.pyramid), width))
        self.block = Block(c, self.dtype, self.backend, self.constrain)
        self.blocks = Blocks(c.depth, self.block.declarations() | self.modulation_declarations())
        self.setup_condition()
        self.head_kernel = self.param("head_kernel", nn.initializers.normal(0.02 * std), (width, c.codebook_size))
        self.head_bias = self.param("head_bias", zeros, (c.codebook_size,))

    def __call__(self, labels_B: jax.Array, inputs_BxNxC: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Teacher-forced logits [B, L, V] float32.

        Args:
          labels_B: class ids; num_classes for "no class".
          inputs_BxNxC: `teacher_inputs` of the tokens, N = L - `start_length`; or those of the coarsest scales, which
            gives their logits alone.
          key: turns class drop and drop path on (training); None is deterministic.
        """
        c = self.config
        others: dict[str, Any] = {}
        if key is not None:
            class_key, path_key = jax.random.split(key)
            dropped_B = jax.random.bernoulli(class_key, jnp.float32(c.class_drop), labels_B.shape)
            labels_B = jnp.where(dropped_B, c.no_class, labels_B)
            if c.drop_path:
                others["drop"] = (jnp.linspace(0.0, c.drop_path, c.depth), jax.random.split(path_key, c.depth))
        length = c.start_length + inputs_BxNxC.shape[1]
        if length not in (*c.pyramid.offsets[1:], c.pyramid.length):
            raise InputError(f"inputs for {length} positions: pyramid {c.pyramid} has no scale that ends there")
        conditioning = self.condition(labels_B)
        first = self.first_inputs(conditioning)
        rest = self.embed_codes(inputs_BxNxC, slice(c.start_length, length))
        x = self.constrain(jnp.concatenate([first, rest], axis=1).astype(self.dtype), "sequence")
        mask = c.mask_LxL[:length, :length]

        def layer(x: jax.Array, params: Params, others: Params, index: jax.Array) -> jax.Array:
            attend = lambda q, k, v: (self.backend.attention(q, k, v, mask), None)
            return self.block(params, x, others["modulation"], attend, others.get("drop"))[0]

        others["modulation"] = conditioning.blocks_DxBx6xW
        x = self.backend.layers(layer, x, self.block_params(), others, self.remat)
        return self.logits(x, conditioning)

    def sample_step(
        self, x_BxlxW: jax.Array, k: int, conditioning: Conditioning, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Logits [B, l_k, V] float32 of scale k from its embedded inputs, and the cache with its keys and values.

        The cache is carried through the layers and written in place at a fixed offset before it is
        read (reading first would make XLA copy all of it in every layer); the finest scale only reads.
        """
        pyramid = self.config.pyramid
        start, end, last = pyramid.offsets[k], pyramid.slice(k).stop, k == len(pyramid) - 1

        def layer(carry: tuple[jax.Array, Cache], params: Params, modulation: jax.Array, index: jax.Array) -> Any:
            x, cache = carry

            def attend(q: jax.Array, new_k: jax.Array, new_v: jax.Array) -> tuple[jax.Array, Cache]:
                new = Cache(new_k, new_v)
                if last:
                    keys, values = (
                        jnp.concatenate([_layer_of(old, index, start), one], axis=1)
                        for old, one in zip(cache, new, strict=True)
                    )
                    return xla_attention(q, keys, values, None), cache
                grown = written(cache, new, index, start)
                keys, values = (_layer_of(part, index, end) for part in grown)
                return xla_attention(q, keys, values, None), grown

            return self.block(params, x, modulation, attend)

        x = self.constrain(x_BxlxW.astype(self.dtype), "sequence")
        modulation = conditioning.blocks_DxBx6xW
        x, cache = self.backend.sampling_layers(layer, (x, cache), self.block_params(), modulation)
        return self.logits(x, conditioning), cache

    def block_params(self) -> Params:
        """Parameters that the loop over layers reads; those that make the modulation are used before it."""
        return {name: value for name, value in self.blocks().items() if not name.startswith("adaln_")}

    # The class: AdaLN, of each block's own or shared with a table per block.

    @nn.nowrap
    def modulation_declarations(self) -> Declarations:
        """The parameters of every block that turn the class into its six vectors."""
        c, width = self.config, self.config.width
        if c.shared_adaln:
            return {"adaln_table": (_modulation_normal(width**-0.5, c.gate_init), (6, width))}
        kernel = _modulation_normal(initial_std(c), c.gate_init), (width, 6, width)
        return {"adaln_kernel": kernel, "adaln_bias": (nn.initializers.zeros, (6, width))}

    @nn.nowrap
    def setup_condition(self) -> None:
        """Declares the parameters that all blocks share, and the head's scale and shift."""
        c, width = self.config, self.config.width
        std, zeros = initial_std(c), nn.initializers.zeros
        if c.shared_adaln:
            self.shared_adaln_kernel = self.param("shared_adaln_kernel", nn.initializers.normal(std), (width, 6, width))
            self.shared_adaln_bias = self.param("shared_adaln_bias", zeros, (6, width))
        halved = nn.initializers.normal(0.5 * std)
        self.head_adaln_kernel = self.param("head_adaln_kernel", halved, (width, 2, width))
        self.head_adaln_bias = self.param("head_adaln_bias", zeros, (2, width))

    def condition(self, labels_B: jax.Array) -> Conditioning:
        """The vectors that the classes give to every layer, for all layers at once."""
        start_BxW = jnp.take(self.class_embedding, labels_B, axis=0)
        blocks = self.blocks()
        if self.config.shared_adaln:
            shared = self._project("bw,wgv->bgv", start_BxW, self.shared_adaln_kernel) + self.shared_adaln_bias
            vectors = blocks["adaln_table"][:, None] + shared[None]
        else:
            vectors = self.backend.in_every_layer(self._project, start_BxW, blocks["adaln_kernel"])
            vectors = vectors + blocks["adaln_bias"][:, None]
        head = self._project("bw,wgv->bgv", start_BxW, self.head_adaln_kernel) + self.head_adaln_bias
        return Conditioning(start_BxW, vectors, head)

    # Into the network and out of it.

    @nn.nowrap
    def scale_input(self, quantizer: Quantizer, f_hat_BxhxwxC: jax.Array, contribution: jax.Array, k: int) -> jax.Array:
        """Input [B, l_k, C] of scale k, from the sum f_hat of all coarser scales and the last one's contribution."""
        return quantizer.next_scale_input(f_hat_BxhxwxC, k)

    @nn.nowrap
    def teacher_inputs(self, quantizer: Quantizer, tokens_BxL: jax.Array) -> jax.Array:
        """Inputs [B, L - `start_length`, C] of all positions but the first scale's, from a picture's own tokens."""
        return quantizer.transformer_input(tokens_BxL)

    def first_inputs(self, conditioning: Conditioning) -> jax.Array:
        """Embedded inputs [B, l_1, W] float32 of the first scale, which knows only the class."""
        start = conditioning.start_BxW[:, None] + self.start_position
        return start + self._places(slice(0, self.config.start_length))

    def embed_codes(self, codes_BxNxC: jax.Array, positions: slice) -> jax.Array:
        """[B, N, W] float32: code vectors projected, with the embeddings of their positions and levels."""
        codes = widened(codes_BxNxC)
        words = jnp.einsum("bnc,cw->bnw", codes, self.word_kernel, precision=precision_for(codes.dtype))
        return words + self.word_bias + self._places(positions)

    def logits(self, x_BxLxW: jax.Array, conditioning: Conditioning) -> jax.Array:
        """[B, L, V] float32."""
        scale_BxW, shift_BxW = conditioning.head_Bx2xW[:, 0], conditioning.head_Bx2xW[:, 1]
        h = modulate(x_BxLxW, scale_BxW, shift_BxW).astype(self.dtype)
        kernel = self.constrain(self.head_kernel.astype(self.dtype), "head_kernel")
        logits = self._project("blw,wv->blv", h, kernel, activate=False) + self.head_bias
        return self.constrain(logits, "logits")

    def _places(self, positions: slice) -> jax.Array:
        """[N, W] float32: position and level embeddings of a run of positions."""
        levels = self.level_embedding[self.config.pyramid.level_ids[positions]]
        return levels + self.position_embedding[positions]

    def _project(self, equation: str, x: jax.Array, kernel: jax.Array, activate: bool = True) -> jax.Array:
        """SiLU (where `activate`), then a product in the compute type with a float32 result."""
        x = (nn.silu(x) if activate else x).astype(self.dtype)
        kernel = kernel.astype(self.dtype)
        precision, wide = precision_for(self.dtype), at_least_float32(self.dtype)
        return jnp.einsum(equation, x, kernel, precision=precision, preferred_element_type=wide)


def written(cache: Cache, new: Cache, index: jax.Array, position: jax.Array | int) -> Cache:
    """The cache with one layer's new keys and values [B, N, H, K] from `position` on."""
    at = (index, 0, position, 0, 0)
    return Cache(*(jax.lax.dynamic_update_slice(old, one[None], at) for old, one in zip(cache, new, strict=True)))


def _layer_of(cache_DxBxMxHxK: jax.Array, index: jax.Array, length: int) -> jax.Array:
    """One layer's first `length` positions: [B, length, H, K]."""
    _, batch, _, heads, width = cache_DxBxMxHxK.shape
    part = jax.lax.dynamic_slice(cache_DxBxMxHxK, (index, 0, 0, 0, 0), (1, batch, length, heads, width))
    return part[0]


def _modulation_normal(std: float, gate_factor: float) -> nn.initializers.Initializer:
    """Normal over [..., 6, W]: gates shrunk by `gate_factor`, scales and shifts halved."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
        factors = np.full(6, 0.5, np.float32)
        factors[[GATE_ATTENTION, GATE_MLP]] = gate_factor
        return jax.random.normal(key, shape, dtype) * std * factors[:, None]

    return draw
