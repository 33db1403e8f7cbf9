"""The training step of stage 2 as the loop runs it, on one device, without a run's directory and data."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from var_jax.benchmark.models import Chosen
from var_jax.errors import InputError
from var_jax.parallel.mesh import make_mesh
from var_jax.training import build
from var_jax.training.config import load_config
from var_jax.training.step import StepProgram

_CONFIG = "var:d16"  # the published recipe; all presets share the parts of it that a step's speed depends on
_OWN = ("model", "batch_size", "dtype", "attention", "tokenizer", "data", "stage")  # options of the command
_STEPS = 100_000  # length of the schedules; a step costs the same for any


def training_program(
    model: Chosen, batch: int, dtype: str, attention: str, overrides: Sequence[str] = ()
) -> StepProgram:
    """Makes the training step of a preset.

    Args:
      model: a preset.
      batch: pictures per step.
      dtype: compute type.
      attention: "xla", "plain", "splash" or "cudnn".
      overrides: "key=value" of the config; recomputation is off unless one turns it on.

    Raises:
      InputError: for an invalid config, or one that sets a field for which the command has an option.
    """
    for text in overrides:
        key = text.removeprefix("--").removeprefix("config.").partition("=")[0]
        if key.partition(".")[0] in _OWN:
            raise InputError(f"--config.{key}: take the command's own options for it, see --help")
    own = [f"model.preset={model.name}", f"batch_size={batch}", f"dtype={dtype}", f"attention={attention}"]
    config = load_config(_CONFIG, ["remat=None", *own, *overrides])
    mesh = make_mesh(**config.mesh, devices=jax.devices()[:1])
    names = [str(number) for number in range(model.transformer.num_classes)]
    task = build.transformer_task(config, mesh, model.tokenizer, names)
    return build.make_program(config, mesh, task, config.steps or _STEPS)
