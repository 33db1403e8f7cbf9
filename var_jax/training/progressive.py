"""Progressive training of stage 2: first the coarsest scales alone, then one more at a time, at last all of them.

Which scales take part is a pure function of the step, so a resumed run stands where the unbroken one
would. Every prefix of scales is one program, because the number of positions is part of its shape.
"""

from __future__ import annotations

import bisect
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.errors import InputError
from var_jax.pyramid import Pyramid

_RAMP_START = 0.01  # a scale's loss weight when it joins, over its full one


@dataclasses.dataclass(frozen=True)
class ScalePrefix:
    """A stretch of training on the coarsest `scales` of `pyramid`; hashable, so it may be a static argument.

    Attributes:
      pyramid: all scales.
      scales: how many take part, fewer than all.
      since: the first step of the stretch.
      ramp_steps: steps over which the newest scale's weight rises to the full one.
    """

    pyramid: Pyramid
    scales: int
    since: int
    ramp_steps: float

    @property
    def prefix(self) -> Pyramid:
        """The scales that take part."""
        return Pyramid(self.pyramid.sides[: self.scales])

    def weights(self, step: jax.Array | int) -> jax.Array:
        """[N] loss weights of the prefix's positions at a step.

        As in the reference, they are 1 / L of the whole pyramid, so a short prefix has a small loss; the
        newest scale's rise in a line from a hundredth, except in the first stretch, which the
        warm-up of the learning rate covers.
        """
        full_N = np.full(self.prefix.length, 1.0 / self.pyramid.length, np.float32)
        if self.since == 0:
            return jnp.asarray(full_N)
        risen = (jnp.asarray(step, jnp.float32) - self.since + 1) / max(self.ramp_steps, 1.0)
        newest_N = self.prefix.level_ids == self.scales - 1
        return full_N * jnp.where(newest_N, jnp.clip(risen, _RAMP_START, 1.0), 1.0)


@dataclasses.dataclass(frozen=True)
class Progressive:
    """The schedule.

    Attributes:
      pyramid: all scales, S.
      total_steps: of the whole training.
      warmup_steps: of the learning rate; the first stretch lasts at least as long.
      until: share of all steps from which on every scale takes part, whatever rounding says.
      first_scales: scales of the first stretch.
      ramp: share of all steps over which the newest scale's weight rises.

    Raises:
      InputError: naming the field that cannot be.
    """

    pyramid: Pyramid
    total_steps: int
    warmup_steps: int
    until: float
    first_scales: int
    ramp: float

    def __post_init__(self) -> None:
        most, warm = len(self.pyramid) - 1, self.warmup_steps / max(self.total_steps, 1)
        if not most:
            raise InputError(
                f"config progressive.until is {self.until}: set it to 0, pyramid {self.pyramid} has one scale"
            )
        if not warm < self.until <= 1.0:
            raise InputError(
                f"config progressive.until is {self.until}: expected 0 for off, or more than the warm-up's "
                f"{warm:g} and 1 at most"
            )
        if not 1 <= self.first_scales <= most:
            raise InputError(
                f"config progressive.first_scales is {self.first_scales}: expected 1 to {most}, "
                f"fewer than pyramid {self.pyramid} has"
            )
        if not 0.0 <= self.ramp <= 1.0:
            raise InputError(f"config progressive.ramp is {self.ramp}: expected a share of all steps, 0 to 1")

    def scales(self, step: int) -> int:
        """How many scales take part in a step: the nearest number on a line that begins after the warm-up."""
        end = self.total_steps * self.until
        if step <= self.warmup_steps:
            return self.first_scales
        if step >= end:
            return len(self.pyramid)
        progress = (step - self.warmup_steps) / (end - self.warmup_steps)
        return self.first_scales + round(progress * (len(self.pyramid) - self.first_scales))

    def at(self, step: int) -> ScalePrefix | None:
        """The scales that take part in a step (counted from 0), or None for all."""
        scales = self.scales(step)
        if scales == len(self.pyramid):
            return None
        since = bisect.bisect_left(range(step + 1), scales, key=self.scales)
        return ScalePrefix(self.pyramid, scales, since, self.ramp * self.total_steps)
