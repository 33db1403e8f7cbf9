"""The least work of a call, phase by phase, from the shapes alone, and its least time at a machine's limits.

A phase's operations are those of `models.costs`. Its bytes are the parameters, once per phase, and in sampling the
keys and values of coarser scales; activations are not counted, since the program decides which of them leave the
caches. So the limit is a lower bound on the time, which no program reaches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from var_jax.benchmark.machine import Limits
from var_jax.models import costs
from var_jax.models.shapes import tokenizer_shapes
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.models.transformer_config import TransformerConfig

_OPTIMIZER_ARRAYS = 8  # of float32: the gradient written; it, the parameters and two moments read; those three written


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a call that cannot begin before the previous one has ended.

    Attributes:
      name: the name in reports.
      flops: operations in matrix products and convolutions.
      bytes: least number of bytes moved from or to memory.
      dtype: compute type.
    """

    name: str
    flops: float
    bytes: float
    dtype: str

    def seconds(self, limits: Limits) -> float:
        """Least seconds at the machine's limits, with arithmetic and transfers at the same time."""
        return max(self.flops / limits.matrix_flops[self.dtype], self.bytes / limits.memory_bandwidth)


def least_seconds(phases: Sequence[Phase], limits: Limits) -> float:
    """Least seconds of a call: its phases one after another."""
    return sum(phase.seconds(limits) for phase in phases)


def arithmetic_seconds(phases: Sequence[Phase], limits: Limits) -> float:
    """Least seconds of a call if moving data took no time."""
    return sum(phase.flops / limits.matrix_flops[phase.dtype] for phase in phases)


def sampling(
    transformer: TransformerConfig, tokenizer: TokenizerConfig, batch: int, guided: bool, dtype: str
) -> list[Phase]:
    """Phases of drawing a batch of pictures: the class, every scale in turn, the decoder."""
    c, rows, size = transformer, batch * (2 if guided else 1), jnp.dtype(dtype).itemsize
    block = 4 * c.width**2 + 2 * c.width * c.mlp_width
    weights = c.depth * block + c.width * c.codebook_size
    phases, seen = [Phase("class", 2.0 * rows * c.modulation_size, c.modulation_size * size, dtype)], 0
    for length in c.steps:
        own = weights + (c.code_width * c.width if seen else 0)
        cached, seen = 2 * rows * c.depth * seen * c.width, seen + length
        scores = 2 * c.depth * length * seen * c.width
        flops = 2.0 * rows * (length * own + scores)
        phases.append(Phase(f"up to position {seen}", flops, (own + cached) * size, dtype))
    sums = costs.quantizer_flops(tokenizer, down=True) - costs.quantizer_flops(tokenizer, down=False)
    flops = float(batch * (sums + costs.decode_flops(tokenizer)))
    return [*phases, Phase("decoder", flops, _numbers(tokenizer, "decoder") * size, dtype)]


def tokenizing(tokenizer: TokenizerConfig, batch: int) -> list[Phase]:
    """Phases of encoding a batch of pictures, in float32."""
    return [
        Phase("encoder", float(batch * costs.encode_flops(tokenizer)), 4.0 * _numbers(tokenizer, "encoder"), "float32")
    ]


def training(
    transformer: TransformerConfig, tokenizer: TokenizerConfig, batch: int, pictures: bool, dtype: str
) -> list[Phase]:
    """Phases of a step of stage 2: encoding (from pictures), the inputs, forward and backward, the optimizer."""
    numbers = costs.transformer_parameters(transformer)
    moved = numbers * (2 * jnp.dtype(dtype).itemsize + 4 * _OPTIMIZER_ARRAYS)
    phases = tokenizing(tokenizer, batch) if pictures else []
    phases.append(Phase("inputs", float(batch * costs.quantizer_flops(tokenizer, down=True)), 0.0, "float32"))
    flops = 3.0 * batch * costs.transformer_forward_flops(transformer)
    return [*phases, Phase("transformer", flops, float(moved), dtype)]


def _numbers(tokenizer: TokenizerConfig, part: str) -> int:
    """Number of parameters in one part of a tokenizer."""
    params: dict[str, Any] = tokenizer_shapes(tokenizer)[part]
    return sum(leaf.size for leaf in jax.tree.leaves(params))
