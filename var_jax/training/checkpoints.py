"""Checkpoints of a run, by Orbax: written beside training, restored into any mesh.

Two items a checkpoint: `weights`, what pictures are drawn with, and `rest`, all else that a run needs
to go on exactly. Together they are the whole state and nothing is stored twice.
"""

from __future__ import annotations

from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from var_jax.training.state import TrainState
from var_jax.training_directory import CHECKPOINTS, WEIGHTS

_REST = "rest"


class Checkpoints:
    """Saves, keeps and restores a run's states."""

    def __init__(self, workdir: epath.Path, keep: int) -> None:
        """Keeps the newest `keep` checkpoints, and the best of those saved right after an evaluation."""
        best = preservation_policy.BestN(
            get_metric_fn=lambda figures: figures["loss"], reverse=True, n=1, keep_checkpoints_without_metrics=False
        )
        policy = preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(keep), best])
        self._manager = ocp.CheckpointManager(
            workdir / CHECKPOINTS,
            item_names=(WEIGHTS, _REST),
            options=ocp.CheckpointManagerOptions(preservation_policy=policy),
        )

    @property
    def latest(self) -> int | None:
        """The newest step there is, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, step: int, figures: dict[str, Any] | None = None) -> None:
        """Starts writing `state`; arrays are copied before this returns. `figures["loss"]` says how good it is."""
        if step == self.latest:
            return
        weights, rest = _split(state)
        args = {WEIGHTS: ocp.args.PyTreeSave(weights), _REST: ocp.args.PyTreeSave(rest)}
        metrics = None if figures is None else {"loss": float(figures["loss"])}
        self._manager.save(step, args=ocp.args.Composite(**args), metrics=metrics, force=True)

    def restore(self, abstract: TrainState) -> TrainState:
        """The newest state, placed as the shardings of `abstract` say."""
        weights, rest = _split(abstract)
        args = {
            name: ocp.args.PyTreeRestore(tree, ocp.checkpoint_utils.construct_restore_args(tree))
            for name, tree in ((WEIGHTS, weights), (_REST, rest))
        }
        restored = self._manager.restore(self.latest, args=ocp.args.Composite(**args))
        return _join(restored[WEIGHTS], restored[_REST])

    def wait(self) -> None:
        """Until everything is on the disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and ends."""
        self._manager.close()


def _split(state: TrainState) -> tuple[Any, dict[str, Any]]:
    rest = state._asdict()
    weights = rest.pop("params" if state.ema is None else "ema")
    return weights, {name: value for name, value in rest.items() if value is not None}


def _join(weights: Any, rest: dict[str, Any]) -> TrainState:
    own = {"ema": weights} if "params" in rest else {"params": weights}
    return TrainState(**{"ema": None, "counts": None, **rest, **own})


def abstract_state(shapes: TrainState, shardings: TrainState) -> TrainState:
    """Shapes with the places they are to be restored to."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
