"""A training step on one device, without a run's directory and data."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from var_jax.parallel.mesh import make_mesh
from var_jax.training.optimizer import AdamW
from var_jax.training.step import StepProgram


def constant(value: float) -> Any:
    """A schedule; equal for equal values."""
    return _Constant(value)


class _Constant(float):
    def __call__(self, step: jax.Array | int) -> float:
        return float(self)


def adamw(rate: float = 1e-2, decay: float = 0.0, betas=(0.5, 0.9), clip: float = 0.0, decayed=()) -> AdamW:
    return AdamW(constant(rate), constant(decay), betas, clip, tuple(decayed))


def on_one_device(task: Any, optimizer: AdamW, batch_size: int = 8, **options: Any) -> StepProgram:
    return StepProgram(task, optimizer, make_mesh(devices=jax.devices()[:1]), (), batch_size, **options)


def stepped(program: StepProgram, state: Any, batch: Any, opponent: Any = None) -> tuple[Any, Any]:
    """State and metrics after a step; the state before it may still be used."""
    return program(jax.tree.map(jnp.copy, state), {}, batch, opponent=opponent)
