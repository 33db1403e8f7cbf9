"""What tests do with whole runs: stop them, look at what they have learned."""

from __future__ import annotations

import contextlib
import os
import signal

import jax
import numpy as np
from etils import epath

from var_jax.training import loop
from var_jax.training.loop import Run


def last_state(config, workdir):
    run = Run(config, epath.Path(workdir))
    run.close()
    return jax.device_get(run.state)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


class StopAt:
    """Sends SIGTERM to this process when a step's batch is asked for, as a preemption would."""

    def __init__(self, monkeypatch, step: int) -> None:
        inner = loop.pipeline.train_batches

        def batches(*args, start_step=0, **kwargs):
            with contextlib.closing(inner(*args, start_step=start_step, **kwargs)) as examples:
                for number, batch in enumerate(examples, start=start_step + 1):
                    if number == step:
                        os.kill(os.getpid(), signal.SIGTERM)
                    yield batch

        monkeypatch.setattr(loop.pipeline, "train_batches", batches)
