"""Bounds a program's speed from its counts: the largest of the times for products, for memory and for the network.

It is a bound: all three are assumed to overlap perfectly, each at the vendor's figure, and vector arithmetic, latency
and the input pipeline to cost nothing. The time beyond the bound has to be measured.
"""

from __future__ import annotations

import dataclasses

from var_jax.models.costs import decode_flops, encode_flops, transformer_forward_flops
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.models.transformer import TransformerConfig
from var_jax.rehearsal.count import Counts
from var_jax.rehearsal.topologies import Chip

IMAGENET_PICTURES = 1_281_167
RESOURCES = ("compute", "memory", "interconnect")


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Bounds of one run of a program on a slice.

    Attributes:
      compute_seconds, memory_seconds, interconnect_seconds: seconds that each would take alone.
      mfu: useful operations over those that the matrix units could do in the longest of the three.
    """

    compute_seconds: float
    memory_seconds: float
    interconnect_seconds: float
    mfu: float

    @property
    def seconds(self) -> float:
        """The least seconds of a run."""
        return max(self.compute_seconds, self.memory_seconds, self.interconnect_seconds)

    @property
    def limit(self) -> str:
        """The largest term: "compute", "memory" or "interconnect"."""
        return max(RESOURCES, key=lambda name: getattr(self, f"{name}_seconds"))


def roofline(counts: Counts, chip: Chip, useful_flops_per_chip: float) -> Roofline:
    """The bounds of a program with these counts per chip."""
    times = (
        counts.passes / chip.peak_flops,
        counts.bytes / chip.memory_bandwidth,
        counts.wire_bytes / chip.interconnect,
    )
    return Roofline(*times, useful_flops_per_chip / chip.peak_flops / max(*times, 1e-12))


def useful_training_flops(model: TransformerConfig | TokenizerConfig) -> float:
    """Operations per picture in a training step without recomputation: forward, and twice that backward.

    For a tokenizer: encoder, quantizer and decoder, without LPIPS and the discriminator. For a transformer: without
    the tokenizer that makes its tokens.
    """
    if isinstance(model, TokenizerConfig):
        return 3.0 * (encode_flops(model) + decode_flops(model))
    return 3.0 * transformer_forward_flops(model)
