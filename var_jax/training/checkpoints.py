"""Checkpoints of a run, by Orbax: written while training goes on, restored into any mesh.

A checkpoint has two items: `weights`, the parameters that draw pictures, and `rest`, everything else that a run needs
to resume exactly. Together they are the whole state, and nothing is stored twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from var_jax.errors import InputError
from var_jax.formats.atomic import writing_failure
from var_jax.formats.bucket import in_bucket
from var_jax.formats.checksums import damage, seal
from var_jax.parallel.processes import from_all, from_first
from var_jax.training.step import TrainState
from var_jax.training_directory import CHECKPOINTS, ORBAX_FILE, SEALED, WEIGHTS, need_not_be_sealed

DAMAGED = "damaged_checkpoints"
_REST, _METRICS = "rest", "metrics"


class _Unnamed(ocp.path.atomicity.AtomicRenameTemporaryPath):
    """A local checkpoint in the making: its files get checksums before it gets its name, so that no kill parts them."""

    async def finalize(self, *args: Any, **kwargs: Any) -> None:
        # An item of a checkpoint has no store. Orbax would write the time into a file that has its checksum by then.
        store, self._checkpoint_metadata_store = self._checkpoint_metadata_store, None
        if store is not None:
            folder = self.get()
            await asyncio.to_thread(store.wait_until_finished)
            await asyncio.to_thread(store.update, folder / ORBAX_FILE, commit_timestamp_nsecs=time.time_ns())
            await asyncio.to_thread(store.wait_until_finished)
            await asyncio.to_thread(seal, Path(folder))
        await super().finalize(*args, **kwargs)


class Checkpoints:
    """Saves, keeps and restores a run's states.

    A checkpoint appears with checksums of its files (not in a bucket, whose storage has its own). A damaged checkpoint
    is put aside, and the previous one counts as the newest.
    """

    def __init__(self, workdir: epath.Path, keep: int, say: Callable[[str], None] = print) -> None:
        """Keeps the newest `keep` checkpoints, and the best of those saved right after an evaluation.

        Raises:
          InputError: if there are checkpoints and all of them are damaged.
        """
        self._folder, self._keep, self._say = workdir / CHECKPOINTS, keep, say
        from_first("checkpoints", self._put_aside_damaged)
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        logging.getLogger("absl").addFilter(_is_news)
        _silence_threads()
        loss = lambda figures: figures["loss"]
        best = preservation_policy.BestN(get_metric_fn=loss, reverse=True, n=1, keep_checkpoints_without_metrics=False)
        policy = preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(self._keep), best])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=loss,  # without it the figures are not written, and a resumed run does not know the best one
            best_mode="min",
            cleanup_tmp_directories=True,  # left by a killed process
            temporary_path_class=None if in_bucket(self._folder) else _Unnamed,
        )
        try:
            return ocp.CheckpointManager(self._folder, item_names=(WEIGHTS, _REST), options=options)
        except (ValueError, KeyError, TypeError) as error:  # damage in what Orbax reads of all of them
            raise InputError(f"{self._folder}: cannot be read ({_reason(error)}): bring it back from a copy") from None

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, step: int, figures: dict[str, Any] | None = None) -> None:
        """Starts writing `state`; arrays are copied before this returns. `figures["loss"]` ranks the checkpoints.

        Raises:
          InputError: if this or the previous checkpoint cannot be written.
        """
        if step == self.latest:
            return
        weights, rest = _split(state)
        args = {WEIGHTS: ocp.args.PyTreeSave(weights), _REST: ocp.args.PyTreeSave(rest)}
        metrics = None if figures is None else {"loss": float(figures["loss"])}
        self.wait()
        with self._writing():
            composite, marks = ocp.args.Composite(**args), None if in_bucket(self._folder) else {SEALED: True}
            self._manager.save(step, args=composite, metrics=metrics, force=True, custom_metadata=marks)

    def restore(self, abstract: TrainState) -> TrainState:
        """Restores the newest undamaged state, with the shardings of `abstract`.

        Raises:
          InputError: if no state can be restored.
        """
        weights, rest = _split(abstract)
        args = {
            name: ocp.args.PyTreeRestore(tree, ocp.checkpoint_utils.construct_restore_args(tree))
            for name, tree in ((WEIGHTS, weights), (_REST, rest))
        }
        damaged = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            # The newest one's checksums hold; an older one's turn comes if it cannot be read all the same.
            reason = from_first("checksums", functools.partial(self._damage, step)) if damaged else None
            try:
                restored = reason or self._manager.restore(step, args=ocp.args.Composite(**args))
            except Exception as error:  # Orbax and TensorStore raise nearly anything on a damaged file
                reason = _reason(error)
            if reason := next(filter(None, from_all("restored", reason)), None):  # damaged for one, so for all
                damaged[step] = reason
                continue
            if damaged:
                from_first("checkpoints", functools.partial(self._put_aside, damaged))
                self._manager.close()
                self._manager = self._open()
            return _join(restored[WEIGHTS], restored[_REST])
        raise self._none_whole(damaged)

    def read_back(self, state: TrainState) -> None:
        """Reads the newest checkpoint's weights from the disk, and compares them with those of `state`.

        Raises:
          InputError: if they cannot be read, or are others.
        """
        weights = _split(state)[0]
        places = jax.tree.map(ocp.utils.to_shape_dtype_struct, weights)
        args = ocp.args.PyTreeRestore(places, ocp.checkpoint_utils.construct_restore_args(places))
        try:
            found = self._manager.restore(self.latest, args=ocp.args.Composite(**{WEIGHTS: args}))[WEIGHTS]
            reason = None if jax.tree.all(jax.tree.map(_equal, found, weights)) else "other numbers than were written"
        except Exception as error:  # as in `restore`
            reason = _reason(error)
        if reason := next(filter(None, from_all("read back", reason)), None):
            raise InputError(
                f"{self._folder}: the checkpoint of step {self.latest} cannot be read back ({reason}): "
                "see to the disk, and start the same command again"
            )

    def wait(self) -> None:
        """Waits until everything is written, with checksums.

        Raises:
          InputError: if it could not be written.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is written, then closes."""
        try:
            self.wait()
        finally:
            with self._writing():
                self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise nearly anything on a full disk
            reason, remedy = writing_failure(error)
            raise InputError(
                f"{self._folder}: a checkpoint could not be written ({reason or _reason(error)}); {remedy}, and "
                "start the same command again: it resumes from the last checkpoint written"
            ) from error

    def _put_aside_damaged(self) -> None:
        """Checks the checkpoints against their checksums, newest first, down to the first undamaged one.

        Where none has whole ones, an older version's that never got any is used.
        """
        steps = ocp.utils.checkpoint_steps(self._folder) if self._folder.exists() else []
        damaged: dict[int, str] = {}
        whole = False
        for step in sorted(steps, reverse=True):
            # Of those before the one that will be used, Orbax reads only its own file and the figures.
            parts = (ORBAX_FILE, _METRICS) if whole else ("",)
            if found := next(filter(None, (self._damage(step, part) for part in parts)), None):
                damaged[step] = found
            else:
                whole = True
        if steps and not whole:
            without = [step for step in damaged if need_not_be_sealed(Path(self._folder / str(step)))]
            if not without:
                raise self._none_whole(damaged)
            used = max(without)
            damaged = {step: reason for step, reason in damaged.items() if step > used}
            self._say(
                f"WARNING: the checkpoint of step {used} has no checksums, as an older var_jax left it when killed: "
                "used, but not every damage can be seen"
            )
        self._put_aside(damaged)

    def _damage(self, step: int, part: str = "") -> str | None:
        """The damage of a checkpoint; of a part of one, none where an older version wrote no checksums."""
        folder = self._folder / str(step)
        if in_bucket(folder) or (part and need_not_be_sealed(Path(folder))):
            return None
        return damage(Path(folder), part)

    def _put_aside(self, damaged: dict[int, str]) -> None:
        aside = self._folder.parent / DAMAGED
        for step, reason in damaged.items():
            self._say(f"WARNING: the checkpoint of step {step} is damaged ({reason}): put into {aside}, not used")
            aside.mkdir(exist_ok=True)
            (self._folder / str(step)).rename(aside / f"{step}_{time.time_ns()}")

    def _none_whole(self, damaged: dict[int, str]) -> InputError:
        listed = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
        return InputError(
            f"{self._folder}: no checkpoint can be read ({listed}): restore one from a copy, or choose another "
            "--workdir to begin anew"
        )


def _is_news(record: logging.LogRecord) -> bool:
    """Filters out Orbax's warning at every checkpoint without figures, since most have none, and what it raises too."""
    raised = record.levelno >= logging.ERROR and "orbax" in record.pathname
    return not raised and "tracked_metric" not in record.getMessage()


def _silence_threads() -> None:
    """Keeps the terminal free of what threads of TensorStore raise while a checkpoint fails, since one line says it."""
    show = sys.unraisablehook
    if getattr(show, "__name__", "") == "_show_others":  # since an earlier run of this process
        return

    def _show_others(raised: sys.UnraisableHookArgs) -> None:
        if "Event loop is closed" not in str(raised.exc_value):
            show(raised)

    sys.unraisablehook = _show_others
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def _equal(a: jax.Array, b: jax.Array) -> bool:
    """Whether two arrays, placed alike, have the same bits in this process."""
    pairs = zip(a.addressable_shards, b.addressable_shards, strict=True)
    return all(np.asarray(x.data).tobytes() == np.asarray(y.data).tobytes() for x, y in pairs if x.replica_id == 0)


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]


def _split(state: TrainState) -> tuple[Any, dict[str, Any]]:
    rest = state._asdict()
    weights = rest.pop("params" if state.ema is None else "ema")
    return weights, {name: value for name, value in rest.items() if value is not None}


def _join(weights: Any, rest: dict[str, Any]) -> TrainState:
    own = {"ema": weights} if "params" in rest else {"params": weights}
    return TrainState(**{"ema": None, "counts": None, "adversary": None, **rest, **own})
