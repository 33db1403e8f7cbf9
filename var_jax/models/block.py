"""One transformer block: modulated norm, attention, modulated norm, MLP. Parameters are declared beside their use.

Heads, and q, k and v, are axes of their own, so that each can be split over a mesh. Norms and gates are float32, matrix
products and activations are in the compute type.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from var_jax.models.backend import Backend
from var_jax.models.constraint import Constrain
from var_jax.models.parameters import Params
from var_jax.models.precision import Dtype, precision_for, widened
from var_jax.models.quantizer import unit_norm
from var_jax.models.transformer_config import TransformerConfig

# Name -> (initializer, shape in one layer).
Declarations = dict[str, tuple[nn.initializers.Initializer, tuple[int, ...]]]
# (q, k, v [B, L, H, K]) -> attention's result [B, L, H, K], and whatever the caller wants to keep.
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]

_NORM_EPSILON = 1e-6
_LARGEST_QK_SCALE = 100.0
_INITIAL_QK_SCALE = 4.0
_PLAIN_SCALE = 0.25  # times head_width^-0.5: the softmax scale without qk norm

# The six vectors that the condition gives each block.
GATE_ATTENTION, GATE_MLP, SCALE_ATTENTION, SCALE_MLP, SHIFT_ATTENTION, SHIFT_MLP = range(6)


def initial_std(config: TransformerConfig) -> float:
    """Standard deviation of initial weights."""
    return math.sqrt(1.0 / (3 * config.width))


@dataclasses.dataclass(frozen=True)
class Block:
    """The function of one block; its parameters come in as a flat dict."""

    config: TransformerConfig
    dtype: Dtype
    backend: Backend
    constrain: Constrain

    def declarations(self) -> Declarations:
        """The parameters of one block, in the order in which they are drawn."""
        return self._attention_declarations() | self._mlp_declarations() | self._qk_norm_declarations()

    def __call__(
        self,
        params: Params,
        x_BxLxW: jax.Array,
        modulation_Bx6xW: jax.Array,
        attend: Attend,
        drop: tuple[jax.Array, jax.Array] | None = None,
    ) -> tuple[jax.Array, Any]:
        """The block's output, and the second result of `attend`. `drop` is (rate, key) of drop path."""
        vector = lambda index: modulation_Bx6xW[:, index]
        h = modulate(x_BxLxW, vector(SCALE_ATTENTION), vector(SHIFT_ATTENTION)).astype(self.dtype)
        h, cache = self._attention(params, h, attend)
        x = x_BxLxW + _branch(h, vector(GATE_ATTENTION), drop, 0)
        h = modulate(x, vector(SCALE_MLP), vector(SHIFT_MLP)).astype(self.dtype)
        x = x + _branch(self._mlp(params, h), vector(GATE_MLP), drop, 1)
        return self.constrain(x, "sequence"), cache

    def _attention_declarations(self) -> Declarations:
        c, normal, zeros = self.config, nn.initializers.normal(initial_std(self.config)), nn.initializers.zeros
        heads = (c.num_heads, c.head_width)
        return {
            "qkv_kernel": (normal, (c.width, 3, *heads)),
            "q_bias": (zeros, heads),
            "v_bias": (zeros, heads),
            "out_kernel": (self._residual_normal(), (*heads, c.width)),
            "out_bias": (zeros, (c.width,)),
        }

    def _attention(self, params: Params, h_BxLxW: jax.Array, attend: Attend) -> tuple[jax.Array, Any]:
        qkv = self._product(params, "qkv_kernel", h_BxLxW)
        q = qkv[:, :, 0] + params["q_bias"].astype(self.dtype)
        k, v = qkv[:, :, 1], qkv[:, :, 2] + params["v_bias"].astype(self.dtype)
        q, k = self._scaled(params, q, k)
        h, cache = attend(*(self.constrain(part, "heads") for part in (q, k, v)))
        return self._product(params, "out_kernel", h, axes=2) + params["out_bias"].astype(self.dtype), cache

    def _qk_norm_declarations(self) -> Declarations:
        if not self.config.qk_norm:
            return {}
        return {"qk_log_scale": (nn.initializers.constant(math.log(_INITIAL_QK_SCALE)), (self.config.num_heads,))}

    def _scaled(self, params: Params, q: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Queries and keys of unit length with a learned scale per head, or plainly scaled queries."""
        if not self.config.qk_norm:
            return q * (_PLAIN_SCALE * self.config.head_width**-0.5), k
        scale_H = jnp.exp(jnp.minimum(params["qk_log_scale"], math.log(_LARGEST_QK_SCALE)))
        return (unit_norm(widened(q)) * scale_H[:, None]).astype(self.dtype), unit_norm(widened(k)).astype(self.dtype)

    def _mlp_declarations(self) -> Declarations:
        c, zeros = self.config, nn.initializers.zeros
        return {
            "mlp_in_kernel": (nn.initializers.normal(initial_std(c)), (c.width, c.mlp_width)),
            "mlp_in_bias": (zeros, (c.mlp_width,)),
            "mlp_out_kernel": (self._residual_normal(), (c.mlp_width, c.width)),
            "mlp_out_bias": (zeros, (c.width,)),
        }

    def _mlp(self, params: Params, h_BxLxW: jax.Array) -> jax.Array:
        h = self._product(params, "mlp_in_kernel", h_BxLxW) + params["mlp_in_bias"].astype(self.dtype)
        h = self.constrain(_gelu(h), "hidden")
        return self._product(params, "mlp_out_kernel", h) + params["mlp_out_bias"].astype(self.dtype)

    def _product(self, params: Params, name: str, h: jax.Array, axes: int = 1) -> jax.Array:
        use = lambda kernel: self.constrain(kernel.astype(self.dtype), name)
        return self.backend.product(h, params[name], axes, precision_for(self.dtype), use)

    def _residual_normal(self) -> nn.initializers.Initializer:
        """For the last kernel of a branch: smaller the more branches add up."""
        return nn.initializers.normal(initial_std(self.config) / math.sqrt(2 * self.config.depth))


class Blocks(nn.Module):
    """Holds the parameters of all blocks, stacked along a first axis of layers; calling it returns them as a dict.

    Parameters that are passed in are returned as they are: a backend may have laid them out its own way.
    """

    depth: int
    declarations: Declarations

    @nn.compact
    def __call__(self) -> Params:
        return {
            name: self.get_variable("params", name)
            if self.has_variable("params", name)
            else self.param(name, init, (self.depth, *shape))
            for name, (init, shape) in self.declarations.items()
        }


def modulate(x_BxLxW: jax.Array, scale_BxW: jax.Array, shift_BxW: jax.Array) -> jax.Array:
    """Layer norm without parameters of its own, then the condition's scale and shift; float32."""
    x = widened(x_BxLxW)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(variance + _NORM_EPSILON)
    return normed * (1.0 + scale_BxW[:, None]) + shift_BxW[:, None]


def _branch(
    h_BxLxW: jax.Array, gate_BxW: jax.Array, drop: tuple[jax.Array, jax.Array] | None, branch: int
) -> jax.Array:
    """The gated branch; drop path removes it for some samples and scales the others up."""
    gate_BxW = widened(gate_BxW)
    if drop is not None:
        rate, key = drop
        stays_B = jax.random.bernoulli(jax.random.fold_in(key, branch), jnp.float32(1.0 - rate), (h_BxLxW.shape[0],))
        gate_BxW = gate_BxW * (stays_B / (1.0 - rate))[:, None]
    return (h_BxLxW * gate_BxW[:, None]).astype(h_BxLxW.dtype)


# Computed once more in the backward pass, which then reads one array in the place of four.
@functools.partial(jax.checkpoint, prevent_cse=False)
def _gelu(x: jax.Array) -> jax.Array:
    """GELU in its tanh form."""
    return nn.gelu(x, approximate=True)
