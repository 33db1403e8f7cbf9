"""The VAR transformer: predicts every token of a scale at once from the coarser scales and a class.

Blocks are stacked: every parameter of `blocks` has the layers as its first axis and one `lax.scan`
runs over them, in training and in sampling alike. Heads, and q, k and v, are axes of their own, so
that each can be split over a mesh. Parameters are float32; `dtype` is the compute type; norms,
softmax and logits are float32. Attention and sharding come in as functions: `attention_fn`, and
`constrain(x, name)`, which is the identity unless a mesh is bound outside.

One difference between training and sampling is what a query can see: in training the block-causal
mask hides finer scales, in sampling they do not exist yet and a cache holds the coarser ones.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from var_jax.errors import InputError
from var_jax.models.attention import AttentionFn, xla_attention
from var_jax.models.constraint import Constrain, identity
from var_jax.models.layers import ALL_KERNELS, OneOf, with_kernel
from var_jax.models.parameters import Params
from var_jax.models.precision import Dtype, at_least_float32, precision_for, widened
from var_jax.models.products import contracted, contracted_on_cpu
from var_jax.models.quantizer import unit_norm
from var_jax.models.recompute import policy
from var_jax.models.transformer_config import TransformerConfig

_NORM_EPSILON = 1e-6
_LARGEST_QK_SCALE = 100.0
_INITIAL_QK_SCALE = 4.0
_PLAIN_SCALE = 0.25  # times head_width^-0.5: the softmax scale without qk norm

GATE_ATTENTION, GATE_MLP, SCALE_ATTENTION, SCALE_MLP, SHIFT_ATTENTION, SHIFT_MLP = range(6)


class Conditioning(NamedTuple):
    """All that a class does to the network, computed once a picture.

    Attributes:
      start_BxW: class embedding, added to the first scale's positions.
      blocks_DxBx6xW: gates, scales and shifts of every block.
      head_Bx2xW: scale and shift before the head.
    """

    start_BxW: jax.Array
    blocks_DxBx6xW: jax.Array
    head_Bx2xW: jax.Array


class Cache(NamedTuple):
    """Keys and values of the scales already sampled, every scale but the finest: [D, B, L - l_S, H, K]."""

    k: jax.Array
    v: jax.Array


def new_cache(config: TransformerConfig, batch: int, dtype: Dtype) -> Cache:
    """An empty cache. The finest scale is never looked back at, so it has no place in it."""
    kept = config.pyramid.length - config.pyramid.lengths[-1]
    shape = (config.depth, batch, kept, config.num_heads, config.head_width)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


class Blocks(nn.Module):
    """Declares the stacked parameters of all blocks; calling it returns them as a flat dict.

    Those of `models.layers.ALL_KERNELS` may be given as tuples of the layers' own arrays.
    """

    config: TransformerConfig

    @nn.compact
    def __call__(self) -> Params:
        c = self.config
        std = _initial_std(c)
        depth, width, heads, head_width, hidden = c.depth, c.width, c.num_heads, c.head_width, c.mlp_width
        normal, zeros = nn.initializers.normal(std), nn.initializers.zeros
        residual = nn.initializers.normal(std / math.sqrt(2 * depth))
        shapes = {
            "qkv_kernel": (normal, (width, 3, heads, head_width)),
            "q_bias": (zeros, (heads, head_width)),
            "v_bias": (zeros, (heads, head_width)),
            "out_kernel": (residual, (heads, head_width, width)),
            "out_bias": (zeros, (width,)),
            "mlp_in_kernel": (normal, (width, hidden)),
            "mlp_in_bias": (zeros, (hidden,)),
            "mlp_out_kernel": (residual, (hidden, width)),
            "mlp_out_bias": (zeros, (width,)),
        }
        if c.qk_norm:
            shapes["qk_log_scale"] = (nn.initializers.constant(math.log(_INITIAL_QK_SCALE)), (heads,))
        if not c.adaln:
            shapes["adaln_norms"] = (zeros, (4, width))
        elif c.shared_adaln:
            shapes["adaln_table"] = (_adaln_normal(width**-0.5, c.gate_init), (6, width))
        else:
            shapes["adaln_kernel"] = (_adaln_normal(std, c.gate_init), (width, 6, width))
            shapes["adaln_bias"] = (zeros, (6, width))
        return {name: self._given(name, init, (depth, *shape)) for name, (init, shape) in shapes.items()}

    def _given(
        self, name: str, init: nn.initializers.Initializer, shape: tuple[int, ...]
    ) -> jax.Array | tuple[jax.Array, ...]:
        if name in ALL_KERNELS and isinstance(kernels := self.get_variable("params", name), tuple):
            return kernels
        return self.param(name, init, shape)


class Transformer(nn.Module):
    """The network over a pyramid of tokens.

    Attributes:
      config: what it is.
      dtype: compute type.
      attention_fn: see `models.attention`; of teacher-forced passes. Sampling, where nothing is masked and the
        keys come from the cache, is always `xla_attention`.
      constrain: sharding constraint by name: "sequence" [B, L, W], "heads" [B, L, H, K],
        "hidden" [B, L, M], "logits" [B, L, V], and kernels as they are used, by their parameters' names.
      remat: name of a policy of `models.recompute` ("nothing_saveable": recompute every block in the
        backward pass), or None to keep everything but an activation that is cheap to make again.
    """

    config: TransformerConfig
    dtype: Dtype = jnp.float32
    attention_fn: AttentionFn = xla_attention
    constrain: Constrain = identity
    remat: str | None = None

    def setup(self) -> None:
        c = self.config
        std = _initial_std(c)
        normal, zeros, width = nn.initializers.normal(std), nn.initializers.zeros, c.width
        self.word_kernel = self.param("word_kernel", nn.initializers.normal(c.input_init * std), (c.code_width, width))
        self.word_bias = self.param("word_bias", zeros, (width,))
        self.class_embedding = self.param("class_embedding", normal, (c.num_classes + 1, width))
        self.start_position = self.param("start_position", normal, (c.start_length, width))
        self.position_embedding = self.param("position_embedding", normal, (c.pyramid.length, width))
        self.level_embedding = self.param("level_embedding", normal, (len(c.pyramid), width))
        self.blocks = Blocks(c)
        if c.shared_adaln:
            self.shared_adaln_kernel = self.param("shared_adaln_kernel", normal, (width, 6, width))
            self.shared_adaln_bias = self.param("shared_adaln_bias", zeros, (6, width))
        if c.adaln:
            halved = nn.initializers.normal(0.5 * std)
            self.head_adaln_kernel = self.param("head_adaln_kernel", halved, (width, 2, width))
        self.head_adaln_bias = self.param("head_adaln_bias", zeros, (2, width))
        self.head_kernel = self.param("head_kernel", nn.initializers.normal(0.02 * std), (width, c.codebook_size))
        self.head_bias = self.param("head_bias", zeros, (c.codebook_size,))

    def __call__(self, labels_B: jax.Array, inputs_BxNxC: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Teacher-forced logits [B, L, V] float32.

        Args:
          labels_B: class ids; num_classes for "no class".
          inputs_BxNxC: the tokenizer's `transformer_input`, N = L - `start_length`; or what the coarsest scales
            have of them, which gives their logits alone.
          key: turns class drop and drop path on (training); None is deterministic.
        """
        c = self.config
        block_keys = None
        if key is not None:
            class_key, path_key = jax.random.split(key)
            dropped_B = jax.random.bernoulli(class_key, c.class_drop, labels_B.shape)
            labels_B = jnp.where(dropped_B, c.no_class, labels_B)
            block_keys = jax.random.split(path_key, c.depth)
        conditioning = self.condition(labels_B)
        first = self.first_inputs(conditioning)
        length = c.start_length + inputs_BxNxC.shape[1]
        if length not in (*c.pyramid.offsets[1:], c.pyramid.length):
            raise InputError(f"inputs for {length} positions: pyramid {c.pyramid} has no scale that ends there")
        rest = self.embed_codes(inputs_BxNxC, slice(c.start_length, length))
        x = self.constrain(jnp.concatenate([first, rest], axis=1).astype(self.dtype), "sequence")
        mask = c.mask_LxL[:length, :length]

        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
            return self.attention_fn(q, k, v, mask), None

        stacked, of_layer = self._block_params()

        def layer(x: jax.Array, scanned: Params, index: int | None) -> tuple[jax.Array, None]:
            params = of_layer(scanned["params"], index)
            x, _ = self._block(x, params, scanned["adaln"], attend, scanned.get("drop"))
            return x, None

        def layer_at(index: int | None) -> Callable[[jax.Array, Params], tuple[jax.Array, None]]:
            one = functools.partial(layer, index=index)
            if self.remat is None:
                return one
            return jax.checkpoint(one, prevent_cse=index is not None, policy=policy(self.remat))

        scanned = {"params": stacked, "adaln": conditioning.blocks_DxBx6xW}
        if block_keys is not None and c.drop_path:
            scanned["drop"] = (jnp.linspace(0.0, c.drop_path, c.depth), block_keys)
        if any(isinstance(kernel, tuple) for kernel in self.blocks().values()):
            for index in range(c.depth):
                x, _ = layer_at(index)(x, jax.tree.map(lambda stack, index=index: stack[index], scanned))
        else:
            x, _ = jax.lax.scan(layer_at(None), x, scanned)
        return self.logits(x, conditioning)

    def condition(self, labels_B: jax.Array) -> Conditioning:
        """What the classes do to every layer, for all layers at once."""
        start_BxW = jnp.take(self.class_embedding, labels_B, axis=0)
        blocks = self.blocks()
        if not self.config.adaln:
            gates_Dx2xW = jnp.ones((self.config.depth, 2, self.config.width))
            vectors = jnp.concatenate([gates_Dx2xW, blocks["adaln_norms"]], axis=1)[:, None]
            vectors = jnp.broadcast_to(vectors, (len(vectors), len(labels_B), *vectors.shape[2:]))
            head = jnp.broadcast_to(self.head_adaln_bias, (len(labels_B), *self.head_adaln_bias.shape))
            return Conditioning(start_BxW, vectors, head)
        if self.config.shared_adaln:
            shared = self._project("bw,wgv->bgv", start_BxW, self.shared_adaln_kernel) + self.shared_adaln_bias
            vectors = blocks["adaln_table"][:, None] + shared[None]
        else:
            vectors = self._modulations(start_BxW, blocks["adaln_kernel"]) + blocks["adaln_bias"][:, None]
        head = self._project("bw,wgv->bgv", start_BxW, self.head_adaln_kernel) + self.head_adaln_bias
        return Conditioning(start_BxW, vectors, head)

    def _modulations(self, start_BxW: jax.Array, kernel: jax.Array | tuple[jax.Array, ...]) -> jax.Array:
        """[D, B, 6, W] float32 without biases."""
        depth, (batch, width) = self.config.depth, start_BxW.shape
        if isinstance(kernel, tuple):  # as matrices, so that gradients are not turned around in memory
            each = [self._project("bw,wv->bv", start_BxW, one.reshape(width, -1)) for one in kernel]
            return jnp.stack(each).reshape(depth, batch, 6, width)
        # Layer by layer, each with its own copy of the input: all at once would turn the kernels around in memory.
        start_DxBxW = jnp.broadcast_to(start_BxW, (depth, batch, width))
        return self._project("dbw,dwgv->dbgv", start_DxBxW, kernel)

    def first_inputs(self, conditioning: Conditioning) -> jax.Array:
        """[B, l_1, W] float32: what stands at the first scale's positions."""
        start = conditioning.start_BxW[:, None] + self.start_position
        return start + self._places(slice(0, self.config.start_length))

    def embed_codes(self, codes_BxNxC: jax.Array, positions: slice) -> jax.Array:
        """[B, N, W] float32: code vectors projected and told where they stand."""
        codes = widened(codes_BxNxC)
        words = jnp.einsum("bnc,cw->bnw", codes, self.word_kernel, precision=precision_for(codes.dtype))
        return words + self.word_bias + self._places(positions)

    def sample_step(
        self, x_BxlxW: jax.Array, k: int, conditioning: Conditioning, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Logits [B, l_k, V] float32 of scale k from its embedded inputs, and the cache with its keys.

        The cache is carried through the layers and written in place at a fixed offset before it is
        read (reading first would make XLA copy all of it in every layer); the finest scale only reads.
        """
        pyramid = self.config.pyramid
        start, end, last = pyramid.offsets[k], pyramid.slice(k).stop, k == len(pyramid) - 1
        stacked, of_layer = self._block_params()

        def layer(carry: tuple[jax.Array, Cache], scanned: Params) -> tuple[tuple[jax.Array, Cache], None]:
            x, cache = carry
            index = scanned["params"]["index"]

            def attend(q: jax.Array, new_k: jax.Array, new_v: jax.Array) -> tuple[jax.Array, Cache]:
                if last:
                    seen = [
                        jnp.concatenate([_layer_of(old, index, start), new], axis=1)
                        for old, new in ((cache.k, new_k), (cache.v, new_v))
                    ]
                    return xla_attention(q, *seen, None), cache
                at = (index, 0, start, 0, 0)
                grown = Cache(
                    jax.lax.dynamic_update_slice(cache.k, new_k[None], at),
                    jax.lax.dynamic_update_slice(cache.v, new_v[None], at),
                )
                seen = [_layer_of(part, index, end) for part in grown]
                return xla_attention(q, *seen, None), grown

            return self._block(x, of_layer(scanned["params"]), scanned["adaln"], attend), None

        scanned = {"params": stacked, "adaln": conditioning.blocks_DxBx6xW}
        x = self.constrain(x_BxlxW.astype(self.dtype), "sequence")
        (x, cache), _ = jax.lax.scan(layer, (x, cache), scanned)
        return self.logits(x, conditioning), cache

    def logits(self, x_BxLxW: jax.Array, conditioning: Conditioning) -> jax.Array:
        """[B, L, V] float32."""
        scale_BxW, shift_BxW = conditioning.head_Bx2xW[:, 0], conditioning.head_Bx2xW[:, 1]
        h = _modulate(x_BxLxW, scale_BxW, shift_BxW).astype(self.dtype)
        kernel = self.constrain(self.head_kernel.astype(self.dtype), "head_kernel")
        logits = self._project("blw,wv->blv", h, kernel, activate=False) + self.head_bias
        return self.constrain(logits, "logits")

    def _block(
        self,
        x_BxLxW: jax.Array,
        params: Params,
        adaln_Bx6xW: jax.Array,
        attend: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]],
        drop: tuple[jax.Array, jax.Array] | None = None,
    ) -> tuple[jax.Array, Any]:
        """One block, and what `attend(q, k, v)` returns beside its result. `drop` is (rate, key) of drop path."""
        dtype, precision = self.dtype, precision_for(self.dtype)
        vector = lambda index: adaln_Bx6xW[:, index]

        def product(h: jax.Array, name: str, axes: int = 1) -> jax.Array:
            contract = contracted_on_cpu if isinstance(params[name], OneOf) else contracted

            def with_one(h: jax.Array, kernel: jax.Array) -> jax.Array:
                return contract(h, self.constrain(kernel.astype(dtype), name), axes, precision)

            return with_kernel(with_one, h, params[name])

        h = _modulate(x_BxLxW, vector(SCALE_ATTENTION), vector(SHIFT_ATTENTION)).astype(dtype)
        qkv = product(h, "qkv_kernel")
        q = qkv[:, :, 0] + params["q_bias"].astype(dtype)
        k, v = qkv[:, :, 1], qkv[:, :, 2] + params["v_bias"].astype(dtype)
        if self.config.qk_norm:
            scale_H = jnp.exp(jnp.minimum(params["qk_log_scale"], math.log(_LARGEST_QK_SCALE)))
            q = (unit_norm(widened(q)) * scale_H[:, None]).astype(dtype)
            k = unit_norm(widened(k)).astype(dtype)
        else:
            q = q * (_PLAIN_SCALE * self.config.head_width**-0.5)
        q, k, v = (self.constrain(part, "heads") for part in (q, k, v))
        h, kept = attend(q, k, v)
        h = product(h, "out_kernel", axes=2)
        h = h + params["out_bias"].astype(dtype)
        x = x_BxLxW + _branch(h, vector(GATE_ATTENTION), drop, 0)

        h = _modulate(x, vector(SCALE_MLP), vector(SHIFT_MLP)).astype(dtype)
        h = product(h, "mlp_in_kernel")
        h = self.constrain(_gelu(h + params["mlp_in_bias"].astype(dtype)), "hidden")
        h = product(h, "mlp_out_kernel")
        h = h + params["mlp_out_bias"].astype(dtype)
        x = self.constrain(x + _branch(h, vector(GATE_MLP), drop, 1), "sequence")
        return x, kept

    def _block_params(self) -> tuple[Params, Callable[..., Params]]:
        """What a scan over the layers slices, and what makes a block's parameters of such a slice.

        AdaLN's are not among them, being used before it. "index" says which layer it is, unless it is told.
        """
        params = {name: value for name, value in self.blocks().items() if not name.startswith("adaln_")}
        own = {name: value for name, value in params.items() if isinstance(value, tuple)}
        stacked = {name: value for name, value in params.items() if name not in own}

        def of_layer(part: Params, index: int | None = None) -> Params:
            index = part["index"] if index is None else index
            return part | {name: OneOf(kernels, index) for name, kernels in own.items()}

        return stacked | {"index": jnp.arange(self.config.depth)}, of_layer

    def _places(self, positions: slice) -> jax.Array:
        """[N, W] float32: position and level embeddings of a run of positions."""
        levels = self.level_embedding[self.config.pyramid.level_ids[positions]]
        return levels + self.position_embedding[positions]

    def _project(self, equation: str, x: jax.Array, kernel: jax.Array, activate: bool = True) -> jax.Array:
        """SiLU (unless told otherwise), then a product in the compute type with a float32 result."""
        x = (nn.silu(x) if activate else x).astype(self.dtype)
        kernel = kernel.astype(self.dtype)
        precision, wide = precision_for(self.dtype), at_least_float32(self.dtype)
        return jnp.einsum(equation, x, kernel, precision=precision, preferred_element_type=wide)


def _layer_of(cache_DxBxMxHxK: jax.Array, index: jax.Array, length: int) -> jax.Array:
    """One layer's first `length` positions: [B, length, H, K]."""
    _, batch, _, heads, width = cache_DxBxMxHxK.shape
    part = jax.lax.dynamic_slice(cache_DxBxMxHxK, (index, 0, 0, 0, 0), (1, batch, length, heads, width))
    return part[0]


# Computed once more in the backward pass instead of kept: one array for the pass to read in the place of four.
@functools.partial(jax.checkpoint, prevent_cse=False)
def _gelu(x: jax.Array) -> jax.Array:
    """The tanh form of it."""
    return nn.gelu(x, approximate=True)


def _modulate(x_BxLxW: jax.Array, scale_BxW: jax.Array, shift_BxW: jax.Array) -> jax.Array:
    """Layer norm without own parameters, then the class's scale and shift; float32."""
    x = widened(x_BxLxW)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(variance + _NORM_EPSILON)
    return normed * (1.0 + scale_BxW[:, None]) + shift_BxW[:, None]


def _branch(
    h_BxLxW: jax.Array, gate_BxW: jax.Array, drop: tuple[jax.Array, jax.Array] | None, branch: int
) -> jax.Array:
    """The gated branch; with drop path, gone for some samples and raised for the others."""
    gate_BxW = widened(gate_BxW)
    if drop is not None:
        rate, key = drop
        kept_B = jax.random.bernoulli(jax.random.fold_in(key, branch), 1.0 - rate, (h_BxLxW.shape[0],))
        gate_BxW = gate_BxW * (kept_B / (1.0 - rate))[:, None]
    return (h_BxLxW * gate_BxW[:, None]).astype(h_BxLxW.dtype)


def _initial_std(config: TransformerConfig) -> float:
    return math.sqrt(1.0 / (3 * config.width))


def _adaln_normal(std: float, gate_factor: float) -> nn.initializers.Initializer:
    """Normal over [..., 6, W]: gates shrunk by `gate_factor`, scales and shifts halved."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        factors = np.full(6, 0.5, np.float32)
        factors[[GATE_ATTENTION, GATE_MLP]] = gate_factor
        return jax.random.normal(key, shape, dtype) * std * factors[:, None]

    return draw
