"""The training state, and the one assembly of the training step: for the loop, the rehearsal and the benchmark.

A step is a pure function of (state, fixed arrays, batch): random keys are folded from the seed and the step's number,
so a resumed run draws as the unbroken one would. A loss or gradient that is not finite changes nothing but `bad_step`,
which stays at the first such step until the loop looks.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from var_jax.errors import InputError
from var_jax.models.parameters import Params
from var_jax.models.reproducible import new_key, own_settings
from var_jax.parallel.mesh import batch_sharding, check_batch, replicated
from var_jax.parallel.rules import Rules, placed, shardings
from var_jax.training.adversary import Adversary
from var_jax.training.optimizer import AdamW
from var_jax.training.progressive import ScalePrefix
from var_jax.training.task import Batch, Metrics, Task

_COUNT_DECAY = 0.99  # of the moving counts


class TrainState(NamedTuple):
    """Everything that a run carries from step to step.

    Attributes:
      step: steps done.
      bad_step: the first step that was not finite, -1 while there is none.
      params: learned.
      ema: moving average of the parameters, or None where it is off.
      opt_state: the optimizer's.
      counts: moving averages of counts that a stage keeps, or None.
      adversary: the opponent's own state, or None.
    """

    step: jax.Array
    bad_step: jax.Array
    params: Params
    ema: Params | None
    opt_state: Any
    counts: Any
    adversary: Any = None

    @property
    def inference_params(self) -> Params:
        """The parameters that pictures are drawn with: the moving average where there is one."""
        return self.params if self.ema is None else self.ema


@dataclasses.dataclass(frozen=True)
class StepProgram:
    """A training step on a mesh. Hashable by value: equal programs of a process are traced and compiled once.

    Attributes:
      task: the stage.
      optimizer: of its parameters.
      mesh: the devices.
      rules: which arrays of the state are split how, see `parallel.rules`.
      batch_size: pictures per step.
      seed: of the run's keys.
      accumulate: micro-batches per step; the gradient is their mean.
      ema_decay: of the moving average of parameters; it starts low and rises, 0 is off.
      opponent: learns beside the task from some step on, or None.

    Raises:
      InputError: for a batch that does not divide, or a rule that does not fit the mesh.
    """

    task: Task
    optimizer: AdamW
    mesh: jax.sharding.Mesh
    rules: Rules
    batch_size: int
    seed: int = 0
    accumulate: int = 1
    ema_decay: float = 0.0
    opponent: Adversary | None = None

    def __post_init__(self) -> None:
        if self.batch_size % self.accumulate:
            raise InputError(f"batch_size {self.batch_size} does not divide by accumulate {self.accumulate}")
        check_batch(self.mesh, self.batch_size // self.accumulate, "batch size (of a micro-batch)")

    @own_settings()
    def fresh(self) -> TrainState:
        """The state before the first step; pure."""
        key = new_key(self.seed)
        params = self.task.init(key)
        ema = jax.tree.map(jnp.copy, params) if self.ema_decay else None
        opt_state = self.optimizer.transformation.init(params)
        own = None if self.opponent is None else self.opponent.init(jax.random.fold_in(key, 1))
        return TrainState(jnp.int32(0), jnp.int32(-1), params, ema, opt_state, self.task.new_counts(), own)

    @property
    def shapes(self) -> TrainState:
        """The state as `jax.ShapeDtypeStruct`s, each with its sharding."""
        return _shapes(self)

    @property
    def places(self) -> TrainState:
        """The sharding of every array of the state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.shapes)

    def first_state(self) -> TrainState:
        """The state before the first step, on the devices."""
        with jax.set_mesh(self.mesh):
            return _drawing(self)()

    def __call__(
        self,
        state: TrainState,
        fixed: Any,
        batch: Batch,
        scales: ScalePrefix | None = None,
        opponent: Adversary | None = None,
    ) -> tuple[TrainState, Metrics]:
        """One compiled step, on the memory of the state before it.

        Args:
          state: before the step; it cannot be used any more.
          fixed: arrays that are used and not learned.
          batch: on the mesh.
          scales: the coarsest scales where only they take part; None: all.
          opponent: takes part where given.
        """
        with jax.set_mesh(self.mesh):
            return _jitted(self)(state, fixed, batch, scales, opponent)

    def lower(self, fixed: Any, batch: Any, opponent: Adversary | None = None) -> jax.stages.Lowered:
        """The step for arrays of such shapes; nothing is drawn or computed."""
        arguments = self.shapes, placed(fixed, replicated(self.mesh)), placed(batch, batch_sharding(self.mesh))
        with jax.set_mesh(self.mesh):
            return _jitted(self).lower(*arguments, None, opponent)


@functools.lru_cache(maxsize=16)
def _shapes(program: StepProgram) -> TrainState:
    abstract = jax.eval_shape(program.fresh)
    return placed(abstract, shardings(program.mesh, program.rules, abstract))


@functools.lru_cache(maxsize=16)
def _drawing(program: StepProgram) -> Any:
    return jax.jit(program.fresh, out_shardings=program.places)


@functools.lru_cache(maxsize=16)
def _jitted(program: StepProgram) -> Any:
    step = functools.partial(_step, program)
    return jax.jit(step, donate_argnums=0, static_argnums=(3, 4), out_shardings=(program.places, None))


@own_settings()
def _step(
    program: StepProgram,
    state: TrainState,
    fixed: Any,
    batch: Batch,
    scales: ScalePrefix | None,
    opponent: Adversary | None,
) -> tuple[TrainState, Metrics]:
    task, backend, optimizer = program.task, program.task.backend, program.optimizer.transformation
    key = jax.random.fold_in(new_key(program.seed), state.step)
    with jax.named_scope("gradients"):
        loss, metrics, counts, grads = _gradients(program, state, fixed, batch, key, scales, opponent)
    adversary, own_norm = state.adversary, 0.0
    if opponent is not None:
        grads, own_grads = grads
        own_norm = optax.tree.norm(own_grads)
        adversary = opponent.update(adversary, own_grads, metrics)
        metrics = metrics | {"opponent_gradient_norm": own_norm}
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm) & jnp.isfinite(own_norm) & (state.bad_step < 0)
    keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
    if state.counts is not None:
        weight = jnp.where(state.step == 0, 0.0, _COUNT_DECAY)
        counts = jax.tree.map(lambda old, new: weight * old + (1.0 - weight) * new, state.counts, counts)

    def finish(params: Params) -> tuple[Params, Any]:
        new = params, counts
        if task.post_update is not None:
            new = task.post_update(*new, batch, key, state.step)
        return keep(new, (state.params, state.counts))

    with jax.named_scope("optimizer"):
        (params, counts), opt_state = backend.update(optimizer, grads, state.opt_state, state.params, finish)
    ema = state.ema
    if ema is not None:
        decay = jnp.minimum(program.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda old, new: old + (1.0 - decay) * (new - old), ema, params)
    new, old = (ema, opt_state, adversary), (state.ema, state.opt_state, state.adversary)
    ema, opt_state, adversary = keep(new, old)
    bad_step = jnp.where(finite | (state.bad_step >= 0), state.bad_step, state.step)
    rate = program.optimizer.learning_rate(state.step)
    state = TrainState(state.step + 1, bad_step, params, ema, opt_state, counts, adversary)
    return state, metrics | {"loss": loss, "gradient_norm": norm, "learning_rate": rate}


def _gradients(
    program: StepProgram,
    state: TrainState,
    fixed: Any,
    batch: Batch,
    key: jax.Array,
    scales: ScalePrefix | None,
    opponent: Adversary | None,
) -> tuple[jax.Array, Metrics, Any, Any]:
    """Loss, metrics, counts and gradients, as means (counts as sums) over the micro-batches.

    With an opponent the gradients are a pair: the task's and its own.
    """
    accumulate, backend, params = program.accumulate, program.task.backend, state.params
    if opponent is None:
        grad_fn = jax.value_and_grad(functools.partial(program.task.loss, scales=scales), has_aux=True)
    else:
        grad_fn = functools.partial(opponent.gradients, state.adversary)
    if accumulate == 1:
        (loss, (metrics, counts)), grads = grad_fn(params, fixed, batch, key, state.step)
        return loss, metrics, counts, grads
    params = backend.split(params)
    # Rows are dealt out in turn, so that every micro-batch stays spread over all devices.
    rows = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)

    def micro(total: Any, scanned: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        part, index = scanned
        out = grad_fn(params, fixed, part, jax.random.fold_in(key, index), state.step)
        return jax.tree.map(jnp.add, total, out), None

    part = jax.tree.map(lambda x: x[0], rows)
    zeros = jax.eval_shape(grad_fn, params, fixed, part, key, state.step)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), zeros)
    ((loss, (metrics, counts)), grads), _ = jax.lax.scan(micro, zeros, (rows, jnp.arange(accumulate)))
    mean: Callable[[Any], Any] = lambda tree: jax.tree.map(lambda x: x / accumulate, tree)
    grads = mean(grads)
    grads = backend.restore(grads) if opponent is None else (backend.restore(grads[0]), grads[1])
    return mean(loss), mean(metrics), counts, grads
