"""Checkpoints of a run, by Orbax: written beside training, restored into any mesh.

Two items per checkpoint: `weights`, with which pictures are drawn, and `rest`, everything else that a run needs
to go on exactly. Together they are the whole state and nothing is stored twice.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from var_jax.errors import InputError
from var_jax.formats.bucket import in_bucket
from var_jax.formats.checksums import damage, seal
from var_jax.parallel.processes import from_all, from_first
from var_jax.training.step import TrainState
from var_jax.training_directory import CHECKPOINTS, WEIGHTS

DAMAGED = "damaged_checkpoints"
_REST = "rest"


class Checkpoints:
    """Saves, keeps and restores a run's states.

    A checkpoint gets checksums of its files once it is written, before the next one is begun (not in a bucket,
    whose storage has its own). One that is damaged is put aside, and the one before it counts as the newest.
    """

    def __init__(self, workdir: epath.Path, keep: int, say: Callable[[str], None] = print) -> None:
        """Keeps the newest `keep` checkpoints, and the best of those saved right after an evaluation.

        Raises:
          InputError: if there are checkpoints and not one of them is whole.
        """
        self._folder, self._keep, self._say = workdir / CHECKPOINTS, keep, say
        self._unsealed: int | None = None
        self._put_aside_damaged()
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        logging.getLogger("absl").addFilter(_is_news)
        loss = lambda figures: figures["loss"]
        best = preservation_policy.BestN(get_metric_fn=loss, reverse=True, n=1, keep_checkpoints_without_metrics=False)
        policy = preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(self._keep), best])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=loss,  # without it the figures are not written, and a resumed run forgets which is the best
            best_mode="min",
            cleanup_tmp_directories=True,  # what a killed process was writing
        )
        return ocp.CheckpointManager(self._folder, item_names=(WEIGHTS, _REST), options=options)

    @property
    def latest(self) -> int | None:
        """The newest step there is, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, step: int, figures: dict[str, Any] | None = None) -> None:
        """Starts writing `state`; arrays are copied before this returns. `figures["loss"]` says how good it is.

        Raises:
          InputError: if this or the one before cannot be written.
        """
        if step == self.latest:
            return
        weights, rest = _split(state)
        args = {WEIGHTS: ocp.args.PyTreeSave(weights), _REST: ocp.args.PyTreeSave(rest)}
        metrics = None if figures is None else {"loss": float(figures["loss"])}
        self.wait()
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(**args), metrics=metrics, force=True)
        self._unsealed = step

    def restore(self, abstract: TrainState) -> TrainState:
        """The newest whole state, placed as the shardings of `abstract` say.

        Raises:
          InputError: if none can be restored.
        """
        weights, rest = _split(abstract)
        args = {
            name: ocp.args.PyTreeRestore(tree, ocp.checkpoint_utils.construct_restore_args(tree))
            for name, tree in ((WEIGHTS, weights), (_REST, rest))
        }
        damaged = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            reason = None
            try:
                restored = self._manager.restore(step, args=ocp.args.Composite(**args))
            except Exception as error:  # whatever Orbax and TensorStore make of a damaged file
                reason = _reason(error)
            if reason := next(filter(None, from_all("restored", reason)), None):  # damaged for one, damaged for all
                damaged[step] = reason
                continue
            if damaged:
                from_first("checkpoints", functools.partial(self._put_aside, damaged))
                self._manager.close()
                self._manager = self._open()
            return _join(restored[WEIGHTS], restored[_REST])
        raise self._none_whole(damaged)

    def wait(self) -> None:
        """Until everything is on the disk, and sealed.

        Raises:
          InputError: if it could not be written.
        """
        with self._writing():
            self._manager.wait_until_finished()
            if self._unsealed is not None and jax.process_index() == 0 and not in_bucket(self._folder):
                seal(Path(self._folder / str(self._unsealed)))
        self._unsealed = None

    def close(self) -> None:
        """Waits and ends."""
        try:
            self.wait()
        finally:
            with self._writing():
                self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever Orbax and TensorStore make of a full disk
            self._unsealed = None
            raise InputError(
                f"{self._folder}: a checkpoint could not be written ({_reason(error)}); free some space or see to the "
                "permissions, and start the same command again: it goes on from the last one that was"
            ) from error

    def _put_aside_damaged(self) -> None:
        """Checks the checkpoints against their checksums, newest first, down to the first that is whole."""
        from_first("checkpoints", self._find_damaged)

    def _find_damaged(self) -> None:
        steps = ocp.utils.checkpoint_steps(self._folder) if self._folder.exists() else []
        if in_bucket(self._folder):
            return
        damaged: dict[int, str] = {}
        for step in sorted(steps, reverse=True):
            if (found := damage(Path(self._folder / str(step)))) is None:
                break
            damaged[step] = found
        if damaged and len(damaged) == len(steps):
            raise self._none_whole(damaged)
        self._put_aside(damaged)

    def _put_aside(self, damaged: dict[int, str]) -> None:
        aside = self._folder.parent / DAMAGED
        for step, reason in damaged.items():
            self._say(f"WARNING: the checkpoint of step {step} is damaged ({reason}): put into {aside}, not used")
            aside.mkdir(exist_ok=True)
            (self._folder / str(step)).rename(aside / f"{step}_{time.time_ns()}")

    def _none_whole(self, damaged: dict[int, str]) -> InputError:
        listed = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
        return InputError(
            f"{self._folder}: not one checkpoint can be read ({listed}): bring one back from a copy, or choose "
            "another --workdir to begin anew"
        )


def _is_news(record: logging.LogRecord) -> bool:
    """Orbax warns at every checkpoint that has no figures, and most have none."""
    return "tracked_metric" not in record.getMessage()


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]


def _split(state: TrainState) -> tuple[Any, dict[str, Any]]:
    rest = state._asdict()
    weights = rest.pop("params" if state.ema is None else "ema")
    return weights, {name: value for name, value in rest.items() if value is not None}


def _join(weights: Any, rest: dict[str, Any]) -> TrainState:
    own = {"ema": weights} if "params" in rest else {"params": weights}
    return TrainState(**{"ema": None, "counts": None, "adversary": None, **rest, **own})
