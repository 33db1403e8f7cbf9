"""Classifier-free guidance: how strong at which scale.

The reference's convention: logits = (1 + t) cond - t uncond, so a strength of **0 is no guidance** (papers often call
that 1). By the reference's schedule t grows linearly from 0 at the coarsest scale to the strength at the finest;
other schedules are a matter of taste.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.errors import InputError
from var_jax.pyramid import Pyramid

KINDS = ("linear", "constant", "interval", "power")
EXPECTED = "linear, constant, interval:LOW,HIGH with 0 <= LOW <= HIGH <= 1, or power:EXPONENT with a number from 0 up"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """t of each scale as a share of the strength, from the ratio r = k / (S-1) of the scale.

    Attributes:
      kind: "linear": r; "constant": 1; "interval": 1 where low <= r <= high, else 0; "power": r ** exponent.
      low, high: of the interval.
      exponent: of the power; 1 is linear, 0 constant, 2 leaves coarse scales nearly unguided.

    Raises:
      InputError: for another kind, or numbers that cannot be.
    """

    kind: str = "linear"
    low: float = 0.0
    high: float = 1.0
    exponent: float = 1.0

    def __post_init__(self) -> None:
        numbers = (self.low, self.high, self.exponent)
        if self.kind not in KINDS or not (0 <= self.low <= self.high <= 1 and 0 <= self.exponent < np.inf):
            raise InputError(f"guidance schedule {self.kind} {numbers}: expected {EXPECTED}")

    @classmethod
    def parse(cls, text: Schedule | str) -> Schedule:
        """From "linear", "constant", "interval:0.2,0.8" or "power:2".

        Raises:
          InputError: for anything else.
        """
        if isinstance(text, Schedule):
            return text
        kind, _, rest = str(text).partition(":")
        try:
            numbers = [float(part) for part in rest.split(",")] if rest else []
            if kind in ("linear", "constant") and not numbers:
                return cls(kind)
            if kind == "interval" and len(numbers) == 2:
                return cls(kind, low=numbers[0], high=numbers[1])
            if kind == "power" and len(numbers) == 1:
                return cls(kind, exponent=numbers[0])
        except ValueError:  # InputError is one
            pass
        raise InputError(f"guidance schedule '{text}': expected {EXPECTED}")

    def strengths(self, strength: jax.Array | float, pyramid: Pyramid) -> jax.Array:
        """[S] float32: t of each scale; the strength may be traced."""
        ratios = np.array([pyramid.ratio(k) for k in range(len(pyramid))])
        shares = {
            "linear": ratios,
            "constant": np.ones_like(ratios),
            "interval": (ratios >= self.low) & (ratios <= self.high),
            "power": ratios**self.exponent,
        }[self.kind]
        return jnp.asarray(strength, jnp.float32) * jnp.asarray(shares, jnp.float32)


def with_no_class(labels_B: jax.Array, no_class: int) -> jax.Array:
    """[2B] class ids: each label, and "no class" after it.

    Pairs, not halves: a batch split over devices keeps both rows of a picture together.
    """
    return jnp.stack([labels_B, jnp.full_like(labels_B, no_class)], axis=1).reshape(-1)


def guide(logits_2BxlxV: jax.Array, t: jax.Array) -> jax.Array:
    """Guided logits [B, l, V] from rows that alternate: with class, without, with, without ..."""
    pairs = logits_2BxlxV.reshape(-1, 2, *logits_2BxlxV.shape[1:])
    return (1.0 + t) * pairs[:, 0] - t * pairs[:, 1]
