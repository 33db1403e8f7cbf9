"""From what a program does to how fast it can be: the largest of the times for products, for memory, for the network.

It is a bound: all three are taken to overlap perfectly, each at the vendor's figure, and vector arithmetic, latency
and the input pipeline to cost nothing. What a program needs beyond it is measured, not rehearsed.
"""

from __future__ import annotations

import dataclasses

from var_jax.models.costs import decode_flops, encode_flops, sample_flops, transformer_forward_flops
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.models.transformer import TransformerConfig
from var_jax.rehearsal.count import Counts
from var_jax.rehearsal.topologies import Chip

IMAGENET_PICTURES = 1_281_167


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Bounds of one run of a program on a slice.

    Attributes:
      compute_seconds, memory_seconds, interconnect_seconds: what each alone would take.
      mfu: useful operations over what the matrix units could do in the largest of the three.
    """

    compute_seconds: float
    memory_seconds: float
    interconnect_seconds: float
    mfu: float

    @property
    def seconds(self) -> float:
        """No run is shorter."""
        return max(self.compute_seconds, self.memory_seconds, self.interconnect_seconds)

    @property
    def limit(self) -> str:
        """The term that stands in the way."""
        times = {"compute": self.compute_seconds, "memory": self.memory_seconds}
        times["interconnect"] = self.interconnect_seconds
        return max(times, key=times.get)


def roofline(counts: Counts, chip: Chip, useful_flops_a_chip: float) -> Roofline:
    """The bounds of a program that does `counts` on each chip."""
    times = (
        counts.passes / chip.peak_flops,
        counts.bytes / chip.memory_bandwidth,
        counts.wire_bytes / chip.interconnect,
    )
    return Roofline(*times, useful_flops_a_chip / chip.peak_flops / max(*times, 1e-12))


def useful_training_flops(model: TransformerConfig | TokenizerConfig) -> float:
    """A picture's share of a training step without recomputation: forward, and twice that backward.

    Of a tokenizer it is encoder, quantizer and decoder; what judges the pictures (LPIPS, a discriminator) and of a
    transformer the tokenizer that makes its tokens are not counted as useful.
    """
    if isinstance(model, TokenizerConfig):
        return 3.0 * (encode_flops(model) + decode_flops(model))
    return 3.0 * transformer_forward_flops(model)


def useful_sampling_flops(transformer: TransformerConfig, tokenizer: TokenizerConfig) -> float:
    """A picture drawn with guidance."""
    return float(sample_flops(transformer, tokenizer, guided=True))
