"""The training state, and the one jitted step that both stages share.

A step is a pure function of (state, fixed arrays, batch): random keys are folded from the seed and the
step's number, so a resumed run draws what the unbroken one would. A loss or gradient that is not
finite changes nothing but `bad_step`, which stays at the first such step until the loop looks.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from var_jax.models.layers import by_layer, stacked
from var_jax.models.parameters import Params

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
# (params, fixed, batch, key, step) -> (loss, (metrics, what is to be added to the moving counts)).
LossFn = Callable[[Params, Any, Batch, jax.Array, jax.Array], tuple[jax.Array, tuple[Metrics, Any]]]
# Runs after an update, for what no gradient does: (params, moving counts, batch, key, step) -> new params and counts.
PostUpdate = Callable[[Params, Any, Batch, jax.Array, jax.Array], tuple[Params, Any]]


class TrainState(NamedTuple):
    """All that a run carries from step to step.

    Attributes:
      step: steps done.
      bad_step: the first step that was not finite, -1 while there is none.
      params: learned.
      ema: moving average of the parameters, or None where it is off.
      opt_state: the optimizer's.
      counts: moving averages of counts that a stage keeps, or None.
      adversary: an `Opponent`'s own state, or None.
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
        """What pictures are drawn with: the moving average where there is one."""
        return self.params if self.ema is None else self.ema


class Opponent(abc.ABC):
    """Another network that learns in the same step, against the first. Given as a step's `stage` it takes part.

    Attributes:
      says: the line for people when it begins to.
    """

    says: str

    @abc.abstractmethod
    def gradients(
        self, own: Any, params: Params, fixed: Any, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[tuple[jax.Array, tuple[Metrics, Any]], tuple[Params, Params]]:
        """What `jax.value_and_grad` of a `LossFn` gives, with the gradients of both sides.

        `own` is the opponent's state before the step.
        """

    @abc.abstractmethod
    def update(self, own: Any, grads: Params, metrics: Metrics) -> Any:
        """The opponent's state after a step with these gradients and metrics, means over the micro-batches."""


def new_state(
    params: Params, optimizer: optax.GradientTransformation, ema: bool, counts: Any, adversary: Any = None
) -> TrainState:
    """The state before the first step."""
    copy = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.int32(0), jnp.int32(-1), params, copy, optimizer.init(params), counts, adversary)


def make_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    seed: int,
    accumulate: int = 1,
    ema_decay: float = 0.0,
    count_decay: float = 0.99,
    post_update: PostUpdate | None = None,
    rate: Callable[[jax.Array], jax.Array] | None = None,
    one_cpu: bool = False,
) -> Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]]:
    """The step function, to be jitted with the state donated and its fourth argument, `stage`, static.

    Args:
      loss_fn: see `LossFn`; a stage that is neither None nor an `Opponent` is handed on to it by that name.
      optimizer: gives updates from gradients.
      seed: of the run's keys.
      accumulate: micro-batches a step; the gradient is their mean.
      ema_decay: of the moving average of parameters; it starts low and rises, 0 is off.
      count_decay: of the moving counts.
      post_update: see `PostUpdate`.
      rate: learning rate by step, to be told among the metrics and so fetched with them; None tells none.
      one_cpu: for a transformer on one CPU: micro-batches take the layers' kernels apart, see `models.layers`, and the
        optimizer's state is changed in place.
    """

    def step_fn(state: TrainState, fixed: Any, batch: Batch, stage: Any = None) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        grad_fn = _grad_fn(loss_fn, state, stage)
        with jax.named_scope("gradients"):
            given = state._replace(params=by_layer(state.params)) if one_cpu and accumulate > 1 else state
            loss, metrics, counts, grads = _gradients(grad_fn, given, fixed, batch, key, accumulate)
            grads = stacked(grads) if given is not state else grads
        adversary, own_norm = state.adversary, 0.0
        if isinstance(stage, Opponent):
            grads, own_grads = grads
            own_norm = optax.tree.norm(own_grads)
            adversary = stage.update(adversary, own_grads, metrics)
            metrics = metrics | {"opponent_gradient_norm": own_norm}
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm) & jnp.isfinite(own_norm) & (state.bad_step < 0)
        keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        if state.counts is not None:
            weight = jnp.where(state.step == 0, 0.0, count_decay)
            counts = jax.tree.map(lambda old, new: weight * old + (1.0 - weight) * new, state.counts, counts)
        if post_update is not None:
            params, counts = post_update(params, counts, batch, key, state.step)
        params = keep(params, state.params)
        if one_cpu:
            # The optimizer's state after the parameters, each in place. XLA on a CPU would copy all of it first.
            with jax.named_scope("optimizer"):
                params, grads = jax.lax.optimization_barrier((params, grads))
                _, opt_state = optimizer.update(grads, state.opt_state, params)
        ema = state.ema
        if ema is not None:
            decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
            ema = jax.tree.map(lambda old, new: old + (1.0 - decay) * (new - old), ema, params)
        new, old = (ema, opt_state, counts, adversary), (state.ema, state.opt_state, state.counts, state.adversary)
        ema, opt_state, counts, adversary = keep(new, old)
        bad_step = jnp.where(finite | (state.bad_step >= 0), state.bad_step, state.step)
        state = TrainState(state.step + 1, bad_step, params, ema, opt_state, counts, adversary)
        told = {} if rate is None else {"learning_rate": rate(state.step - 1)}
        return state, metrics | {"loss": loss, "gradient_norm": norm} | told

    return step_fn


def _grad_fn(loss_fn: LossFn, state: TrainState, stage: Any) -> Callable[..., Any]:
    """(params, fixed, batch, key, step) -> ((loss, (metrics, counts)), gradients)."""
    if isinstance(stage, Opponent):
        return functools.partial(stage.gradients, state.adversary)
    return jax.value_and_grad(loss_fn if stage is None else functools.partial(loss_fn, stage=stage), has_aux=True)


def _gradients(
    grad_fn: Callable[..., Any], state: TrainState, fixed: Any, batch: Batch, key: jax.Array, accumulate: int
) -> tuple[jax.Array, Metrics, Any, Params]:
    """Loss, metrics, counts and gradients, as means (counts as sums) over the micro-batches."""
    if accumulate == 1:
        (loss, (metrics, counts)), grads = grad_fn(state.params, fixed, batch, key, state.step)
        return loss, metrics, counts, grads
    # Rows are dealt out in turn, so that every micro-batch stays spread over all devices.
    split = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)

    def micro(total: Any, scanned: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        part, index = scanned
        out = grad_fn(state.params, fixed, part, jax.random.fold_in(key, index), state.step)
        return jax.tree.map(jnp.add, total, out), None

    part = jax.tree.map(lambda x: x[0], split)
    zeros = jax.eval_shape(grad_fn, state.params, fixed, part, key, state.step)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), zeros)
    ((loss, (metrics, counts)), grads), _ = jax.lax.scan(micro, zeros, (split, jnp.arange(accumulate)))
    mean = lambda tree: jax.tree.map(lambda x: x / accumulate, tree)
    return mean(loss), mean(metrics), counts, mean(grads)
