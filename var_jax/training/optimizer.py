"""AdamW as VAR was trained with it: clipping, and learning rate and weight decay on schedules.

Schedules are functions of the step, counted from 0, over a known total. The reference trains d16 to d36 with `linear`,
turn 0.05, final 0.1 or 0.01; all its other schedules are here under plain names. Everything here is hashable by value,
so that two runs of one config share a compiled step.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from var_jax.errors import InputError
from var_jax.parallel.rules import path_name

Schedule = Callable[[jax.Array | int], jax.Array]

SCHEDULES = ("cosine", "linear", "two_slopes", "exponential", "constant")
_WARMUP_START = 0.005  # of the peak


@dataclasses.dataclass(frozen=True)
class LearningRate:
    """Learning rate by step.

    Attributes:
      kind: after the warm-up, with x from 0 to 1 over the rest:
        "cosine" falls from 1 to `final` by half a cosine;
        "linear" stays at 1 up to x = `turn`, then falls to `final` in a line;
        "two_slopes" falls gently up to `turn`, then more steeply to `final`;
        "exponential" stays at 1 up to `turn`, then falls to `final` by a constant factor per step;
        "constant" stays at 1.
      peak: the rate that 1 stands for.
      total_steps: of the whole training.
      warmup_steps: rising in a line from 0.005 of the peak.
      final: share of the peak at the last step.
      turn: see `kind`.

    Raises:
      InputError: for an unknown kind or numbers that make no schedule.
    """

    kind: str
    peak: float
    total_steps: int
    warmup_steps: int
    final: float = 0.1
    turn: float = 0.05

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise InputError(f"schedule '{self.kind}': expected one of {', '.join(SCHEDULES)}")
        if not 0 <= self.turn < 1 or not 0 <= self.final <= 1 or not 0 <= self.warmup_steps <= self.total_steps:
            raise InputError(
                f"schedule {self.kind}: turn {self.turn} and final {self.final} must be shares, "
                f"warm-up {self.warmup_steps} at most the {self.total_steps} steps"
            )

    def __call__(self, step: jax.Array | int) -> jax.Array:
        """The rate of a step, float32."""
        return self._schedule(jnp.asarray(step, jnp.float32))

    @functools.cached_property
    def _schedule(self) -> optax.Schedule:
        decay = self._decay(max(self.total_steps - 1 - self.warmup_steps, 1))
        if not self.warmup_steps:
            return decay
        warm_up = optax.linear_schedule(_WARMUP_START * self.peak, self.peak, self.warmup_steps)
        return optax.join_schedules([warm_up, decay], [self.warmup_steps])

    def _decay(self, steps: int) -> optax.Schedule:
        peak, final, turn = self.peak, self.final * self.peak, self.turn * steps
        line = lambda start, end: optax.linear_schedule(start, end, steps - turn, turn)
        if self.kind == "cosine":
            return optax.cosine_decay_schedule(peak, steps, self.final)
        if self.kind == "linear":
            return line(peak, final)
        if self.kind == "two_slopes":
            knee = (peak + final + (peak - final) * (1 - self.turn)) / 2
            gentle = optax.linear_schedule(peak, knee, max(turn, 1e-9))
            return lambda step: jnp.where(step < turn, gentle(step), line(knee, final)(step))
        if self.kind == "exponential":
            factor = max(self.final, 1e-9)
            return optax.exponential_decay(peak, steps - turn, factor, turn, end_value=factor * peak)
        return optax.constant_schedule(peak)


@dataclasses.dataclass(frozen=True)
class WeightDecay:
    """Weight decay by step: half a cosine from `first` to `last` over all steps."""

    first: float
    last: float
    total_steps: int

    def __call__(self, step: jax.Array | int) -> jax.Array:
        """The weight decay of a step, float32."""
        fall = optax.cosine_decay_schedule(1.0, max(self.total_steps - 1, 1))
        return self.last + (self.first - self.last) * fall(jnp.asarray(step, jnp.float32))


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Global-norm clip, then AdamW (epsilon 1e-8; decay times the current rate).

    Attributes:
      learning_rate, weight_decay: by step; hashable.
      betas: of the two moments.
      clip: largest global gradient norm; 0 is off.
      decayed: patterns of the parameters' paths that weight decay applies to.
    """

    learning_rate: Schedule
    weight_decay: Schedule
    betas: tuple[float, float]
    clip: float
    decayed: tuple[str, ...]

    @functools.cached_property
    def transformation(self) -> optax.GradientTransformation:
        """The optimizer for optax."""

        def adamw(learning_rate: jax.Array, weight_decay: jax.Array) -> optax.GradientTransformation:
            return optax.adamw(learning_rate, *self.betas, eps=1e-8, weight_decay=weight_decay, mask=self._mask)

        rates = {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay}
        steps = optax.inject_hyperparams(adamw)(**rates)
        return optax.chain(_clip(self.clip), steps) if self.clip else optax.chain(steps)

    def _mask(self, params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: any(re.search(pattern, path_name(path)) for pattern in self.decayed), params
        )


def _clip(largest: float) -> optax.GradientTransformation:
    """Gradients times one number, so that their global norm is at most this.

    Like `optax.clip_by_global_norm`, whose division of every gradient XLA does not fuse: it would hold them all twice.
    """

    def update(grads: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
        factor = jnp.minimum(1.0, largest / optax.tree.norm(grads))
        return jax.tree.map(lambda grad: grad * factor, grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def warmup_steps(section: ml_collections.ConfigDict, total_steps: int) -> int:
    """Steps of warm-up of a config's section `optimizer`."""
    return round(section.warmup * total_steps)


def config_optimizer(
    section: ml_collections.ConfigDict, batch_size: int, total_steps: int, decayed: tuple[str, ...]
) -> AdamW:
    """The optimizer of a config's section `optimizer`."""
    peak = section.learning_rate_per_256 * batch_size / 256
    warmup = warmup_steps(section, total_steps)
    rate = LearningRate(section.schedule, peak, total_steps, warmup, section.final, section.turn)
    decay = WeightDecay(section.weight_decay, section.weight_decay_end, total_steps)
    return AdamW(rate, decay, tuple(section.betas), section.clip, decayed)
