"""How pictures are drawn: the options of a user with their defaults, and the same as the sampler takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.errors import InputError
from var_jax.generation.guidance import Schedule
from var_jax.pyramid import Pyramid

PerScale = Sequence[float] | float  # one number for all scales, or one each


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """The sampling options of every command and of `Bundle.generate`, with the defaults of all of them.

    The defaults are those of the published figures; docs/sampling.md says why.

    Attributes:
      guidance: strength of classifier-free guidance; 0 is none.
      top_k: draw from the k likeliest tokens; 0 keeps all.
      top_p: draw from the likeliest tokens that make up this probability; 0 keeps all.
      temperature: divides the logits before both.
      smooth: mix codes instead of drawing one.
      schedule: of guidance over the scales, see `Schedule`.
    """

    guidance: float = 1.5
    top_k: PerScale = 900
    top_p: PerScale = 0.96
    temperature: PerScale = 1.0
    smooth: bool = False
    schedule: Schedule | str = "linear"

    def check(self, scales: int | None = None) -> None:
        """Checks every option that is a number, and the schedule.

        Args:
          scales: of the pyramid; None, as before the model is known, accepts a list of any length.

        Raises:
          InputError: naming the first option that cannot be.
        """
        whole = lambda value: value >= 0 and value % 1 == 0
        share = lambda value: 0.0 <= value <= 1.0
        above_0 = lambda value: 0.0 < value < np.inf
        _check("guidance", self.guidance, np.isfinite, "expected a finite number, 0 for none", 0)
        _check("top_k", self.top_k, whole, "expected a whole number, 0 to keep all tokens", scales)
        _check("top_p", self.top_p, share, "expected 0 to 1, 0 to keep all tokens", scales)
        greedy = "expected a number above 0 (top_k 1 is the greedy choice)"
        _check("temperature", self.temperature, above_0, greedy, scales)
        Schedule.parse(self.schedule)


DEFAULTS = SamplingOptions()
PLAIN = {"guidance": 0.0, "top_k": 0, "top_p": 0.0}  # the distribution of the model itself


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Settings:
    """The sampling options laid out over the scales; a pytree whose numbers are traced.

    Attributes:
      guidance_S: t in (1 + t) cond - t uncond; 0 is none.
      top_k_S: int32; 0 keeps all.
      top_p_S: 0 keeps all.
      temperature_S: divides the guided logits before filtering; above 0.
      guided: static; whether the batch is doubled for guidance.
      smooth: static; whether codes are mixed by Gumbel softmax over the filtered logits, more sharply at finer
        scales, instead of drawn; for looks only.
    """

    guidance_S: jax.Array
    top_k_S: jax.Array
    top_p_S: jax.Array
    temperature_S: jax.Array
    guided: bool = dataclasses.field(metadata={"static": True})
    smooth: bool = dataclasses.field(metadata={"static": True})

    @classmethod
    def create(cls, pyramid: Pyramid, **options: Any) -> Settings:
        """Settings for the scales of `pyramid` from `SamplingOptions` by name.

        Raises:
          InputError: naming the first option that cannot be.
        """
        chosen = SamplingOptions(**options)
        chosen.check(len(pyramid))
        per_scale = lambda value, dtype: jnp.broadcast_to(jnp.asarray(value, dtype), (len(pyramid),))
        largest = np.iinfo(np.int32).max  # a top_k beyond it keeps all tokens, too
        return cls(
            Schedule.parse(chosen.schedule).strengths(chosen.guidance, pyramid),
            per_scale(np.minimum(np.asarray(chosen.top_k), largest), jnp.int32),
            per_scale(np.asarray(chosen.top_p), jnp.float32),
            per_scale(np.asarray(chosen.temperature), jnp.float32),
            guided=bool(chosen.guidance != 0),
            smooth=chosen.smooth,
        )

    def unguided(self) -> Settings:
        """The same without guidance, whose batch need not be doubled."""
        return dataclasses.replace(self, guided=False)


def _check(name: str, value: Any, holds: Callable[[Any], bool], expected: str, scales: int | None) -> None:
    """Checks one number, or a list of one per scale; `scales` 0 accepts no list, None one of any length."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.empty(0, object)
    several = "" if scales == 0 else ", or one for each scale"
    if array.dtype.kind not in "iuf" or array.ndim > 1 or (array.ndim and scales == 0):
        raise InputError(f"{name} {value!r:.60}: expected a number{several}")
    if array.ndim and (not array.size or scales not in (None, array.size)):
        raise InputError(f"{name} {value!r}: expected a number{several}, which are {scales or 'one or more'}")
    for one in array.ravel():
        with np.errstate(over="ignore", invalid="ignore"):  # the program's float32: 1e-50 is 0 and 1e50 infinite
            if not holds(np.float32(one)) or (name == "top_k" and one % 1 != 0):
                raise InputError(f"{name} {one if array.ndim else value}: {expected}")
