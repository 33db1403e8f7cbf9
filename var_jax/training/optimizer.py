"""AdamW as VAR was trained with it: clipping, learning rate and weight decay both on schedules.

Schedules are functions of the step, counted from 0, over a known total. The reference trains d16 to
d36 with `linear`, turn 0.05, final 0.1 or 0.01; all its other schedules are here under plain names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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


def learning_rate_schedule(
    kind: str, peak: float, total_steps: int, warmup_steps: int, final: float = 0.1, turn: float = 0.05
) -> Schedule:
    """Learning rate by step.

    Args:
      kind: after the warm-up, with x from 0 to 1 over the rest:
        "cosine" falls from 1 to `final` by half a cosine;
        "linear" stays at 1 up to x = `turn`, then falls to `final` in a line;
        "two_slopes" falls gently up to `turn`, then more steeply to `final`;
        "exponential" stays at 1 up to `turn`, then falls to `final` by a constant factor a step;
        "constant" stays at 1.
      peak: the rate that 1 stands for.
      total_steps: of the whole training.
      warmup_steps: rising in a line from 0.005 of the peak.
      final: share of the peak at the last step.
      turn: see `kind`.

    Raises:
      InputError: for an unknown kind or numbers that make no schedule.
    """
    if kind not in SCHEDULES:
        raise InputError(f"schedule '{kind}': expected one of {', '.join(SCHEDULES)}")
    if not 0 <= turn < 1 or not 0 <= final <= 1 or not 0 <= warmup_steps <= total_steps:
        raise InputError(
            f"schedule {kind}: turn {turn} and final {final} must be shares, "
            f"warm-up {warmup_steps} at most the {total_steps} steps"
        )
    decay = _decays(final, turn)[kind]

    def schedule(step: jax.Array | int) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        x = (step - warmup_steps) / max(total_steps - 1 - warmup_steps, 1)
        warm = _WARMUP_START + (1 - _WARMUP_START) * step / max(warmup_steps, 1)
        return peak * jnp.where(step < warmup_steps, warm, decay(jnp.clip(x, 0.0, 1.0)))

    return schedule


def _decays(final: float, turn: float) -> dict[str, Callable[[jax.Array], jax.Array]]:
    falling = lambda x: (1 - x) / (1 - turn)  # 1 at the turn, 0 at the end
    knee = (1 + final + (1 - final) * (1 - turn)) / 2
    return {
        "cosine": lambda x: final + (1 - final) * (0.5 + 0.5 * jnp.cos(jnp.pi * x)),
        "linear": lambda x: jnp.where(x < turn, 1.0, final + (1 - final) * falling(x)),
        "two_slopes": lambda x: jnp.where(
            x < turn, 1 + (knee - 1) * x / max(turn, 1e-9), final + (knee - final) * falling(x)
        ),
        "exponential": lambda x: jnp.where(x < turn, 1.0, jnp.power(max(final, 1e-9), (x - turn) / (1 - turn))),
        "constant": jnp.ones_like,
    }


def weight_decay_schedule(first: float, last: float, total_steps: int) -> Schedule:
    """Weight decay by step: half a cosine from `first` to `last` over all steps."""

    def schedule(step: jax.Array | int) -> jax.Array:
        x = jnp.asarray(step, jnp.float32) / max(total_steps - 1, 1)
        return last + (first - last) * (0.5 + 0.5 * jnp.cos(jnp.pi * jnp.clip(x, 0.0, 1.0)))

    return schedule


def make_optimizer(
    learning_rate: Schedule,
    weight_decay: Schedule,
    betas: tuple[float, float],
    clip: float,
    decayed: Sequence[str],
) -> optax.GradientTransformation:
    """Global-norm clip, then AdamW (epsilon 1e-8; decay times the current rate).

    Args:
      learning_rate, weight_decay: by step.
      betas: of the two moments.
      clip: largest global gradient norm; 0 is off.
      decayed: patterns of the parameters' paths that weight decay applies to.
    """

    def mask(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: any(re.search(pattern, path_name(path)) for pattern in decayed), params
        )

    def adamw(learning_rate: jax.Array, weight_decay: jax.Array) -> optax.GradientTransformation:
        return optax.adamw(learning_rate, *betas, eps=1e-8, weight_decay=weight_decay, mask=mask)

    steps = optax.inject_hyperparams(adamw)(learning_rate=learning_rate, weight_decay=weight_decay)
    return optax.chain(_clip(clip), steps) if clip else optax.chain(steps)


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


def make_config_optimizer(
    section: ml_collections.ConfigDict, batch_size: int, total_steps: int, decayed: Sequence[str]
) -> tuple[Schedule, optax.GradientTransformation]:
    """Learning rate by step, and the optimizer, of a config's section `optimizer`; see `make_optimizer`."""
    peak = section.learning_rate_per_256 * batch_size / 256
    warmup = warmup_steps(section, total_steps)
    rate = learning_rate_schedule(section.schedule, peak, total_steps, warmup, section.final, section.turn)
    decay = weight_decay_schedule(section.weight_decay, section.weight_decay_end, total_steps)
    return rate, make_optimizer(rate, decay, tuple(section.betas), section.clip, decayed)
