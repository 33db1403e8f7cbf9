"""What tests do with whole runs: stop them, look at what they have learned."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from var_jax.formats.bucket import open_folder
from var_jax.training import loop
from var_jax.training.step import TrainState
from var_jax.training_directory import CHECKPOINTS, newest_step


def last_state(workdir) -> TrainState:
    """The newest checkpoint as it lies on the disk: the named tuples inside are dictionaries there."""
    folder = open_folder(workdir) / CHECKPOINTS / str(newest_step(open_folder(workdir)))
    weights, rest = (_read(folder / name) for name in ("weights", "rest"))
    own = {"ema": weights} if "params" in rest else {"params": weights}
    return TrainState(**{"ema": None, "counts": None, "adversary": None, **rest, **own})


def _read(folder):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(folder).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@contextlib.contextmanager
def on_one_device() -> Iterator[None]:
    """Runs whose config names no mesh take the first device alone: the cheapest programs to compile and to save."""
    all_devices = loop.make_mesh

    def make_mesh(data: int, fsdp: int, tensor: int, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
        first = jax.devices()[:1] if (data, fsdp, tensor) == (-1, 1, 1) else None
        return all_devices(data, fsdp, tensor, devices or first)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_mesh", make_mesh)
        yield


class StopAt:
    """Sends SIGTERM to this process when a step's batch is asked for, as a preemption would; or another signal."""

    def __init__(self, monkeypatch, step: int, number: int = signal.SIGTERM) -> None:
        inner = loop.pipeline.train_batches

        def batches(*args, start_step=0, **kwargs):
            with contextlib.closing(inner(*args, start_step=start_step, **kwargs)) as examples:
                for place, batch in enumerate(examples, start=start_step + 1):
                    if place == step:
                        os.kill(os.getpid(), number)
                    yield batch

        monkeypatch.setattr(loop.pipeline, "train_batches", batches)
