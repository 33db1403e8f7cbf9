"""The training step of stage 2 as the loop runs it, on one device, without a run's directory and data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from var_jax.benchmark.models import Chosen
from var_jax.errors import InputError
from var_jax.models.shapes import tokenizer_shapes
from var_jax.parallel.mesh import batch_sharding, check_batch, make_mesh, on_one_cpu
from var_jax.parallel.rules import Constrain, shardings
from var_jax.training import build
from var_jax.training.config import load_config
from var_jax.training.optimizer import make_config_optimizer
from var_jax.training.state import TrainState, make_step, new_state
from var_jax.training.transformer import TransformerTask

_CONFIG = "var_d16"  # the published recipe; all presets share what of it a step's speed depends on
_OWN = ("model", "batch_size", "dtype", "attention", "tokenizer", "data", "stage")  # said by options of the command
_STEPS = 100_000  # of schedules; a step costs the same whatever they are


class Program:
    """A preset's step.

    Args:
      model: a preset; its tokenizer has drawn weights.
      batch: pictures a step.
      dtype: compute type.
      attention: "xla", "plain", "splash" or "cudnn".
      overrides: "key=value" of the config; recomputation is off unless one turns it on.

    Raises:
      InputError: for a config that cannot be, or that says what an option of the command does.
    """

    def __init__(self, model: Chosen, batch: int, dtype: str, attention: str, overrides: Sequence[str] = ()) -> None:
        for text in overrides:
            key = text.removeprefix("--").removeprefix("config.").partition("=")[0]
            if key.partition(".")[0] in _OWN:
                raise InputError(f"--config.{key}: take the command's own options for it, see --help")
        own = [f"model.preset={model.name}", f"batch_size={batch}", f"dtype={dtype}", f"attention={attention}"]
        config = load_config(_CONFIG, ["remat=None", *own, *overrides])
        self._model, self.config = model, config
        self.mesh = make_mesh(**config.mesh, devices=jax.devices()[:1])
        if batch % config.accumulate:
            raise InputError(f"batch {batch} does not divide by accumulate {config.accumulate}")
        check_batch(self.mesh, batch // config.accumulate)
        classes = model.transformer.num_classes
        module = build.transformer(config, model.tokenizer, classes, Constrain(self.mesh))
        names = [str(number) for number in range(classes)]
        self.task = TransformerTask(module, model.tokenizer, {}, names, config.label_smoothing)
        rate, optimizer = make_config_optimizer(config.optimizer, batch, config.steps or _STEPS, self.task.decayed)
        self._fresh = functools.partial(self._first_state, optimizer)
        self._shapes = jax.eval_shape(self._fresh)
        self._places = shardings(self.mesh, config.sharding, self._shapes)
        given = {"rate": rate, "one_cpu": on_one_cpu(self.mesh)}
        step = make_step(self.task.loss, optimizer, config.seed, config.accumulate, config.ema_decay, **given)
        self._step = jax.jit(step, donate_argnums=0, static_argnums=3, out_shardings=(self._places, None))

    def _first_state(self, optimizer: Any) -> TrainState:
        params = self.task.init(jax.random.key(self.config.seed))
        return new_state(params, optimizer, self.config.ema_decay > 0, None)

    def ready(self, batch: dict[str, jax.Array]) -> Callable[[], Any]:
        """A step on this batch, again and again; the state goes from one to the next in place."""
        everywhere = jax.sharding.NamedSharding(self.mesh, jax.P())
        with jax.set_mesh(self.mesh):
            state = jax.jit(self._fresh, out_shardings=self._places)()
        fixed = jax.device_put(self._model.tokenizer_on_device(), everywhere)
        batch = jax.device_put(batch, batch_sharding(self.mesh))

        def call() -> Any:
            nonlocal state
            with jax.set_mesh(self.mesh):
                state, metrics = self._step(state, fixed, batch, None)
            return state, metrics

        return call

    def lowered(self, batch: dict[str, Any]) -> jax.stages.Lowered:
        """The step for a batch of such shapes, nothing drawn or computed."""
        placed = lambda tree, place: jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree
        )
        state = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), self._shapes, self._places
        )
        everywhere = jax.sharding.NamedSharding(self.mesh, jax.P())
        with jax.set_mesh(self.mesh):
            return self._step.lower(
                state,
                placed(tokenizer_shapes(self._model.tokenizer), everywhere),
                placed(batch, batch_sharding(self.mesh)),
                None,
            )
