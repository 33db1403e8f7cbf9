"""A run on a prepared TFDS data set, read by worker processes: stopped and resumed, it is the unbroken one."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from etils import epath

from tests.data.tiny_tfds import TinyTrees
from tests.training import tiny
from tests.training.test_loop import StopAt
from var_jax.cli.main import main
from var_jax.training.loop import FINISHED, PREEMPTED, Run


def config_for(data_dir, workers):
    """The tiny tokenizer for two passes over the 24 pictures; the stop is in the middle of the second."""
    config = tiny.tokenizer(checkpoint_every=100, report_every=5)
    with config.unlocked():
        config.data.kind, config.data.options = "tfds", {"name": TinyTrees.name, "data_dir": str(data_dir)}
        config.data.enlarge, config.data.flip, config.data.workers = 1.5, True, workers
    return config


def run_on_one_device(config, workdir):
    """Exit code, and the state it ended in."""
    run = Run(config, epath.Path(workdir), jax.devices()[:1])
    code = run.go()
    return code, jax.device_get(run.state)


@pytest.mark.campaign
def test_workers_stopped_and_resumed_are_the_unbroken_run(tmp_path, monkeypatch):
    data_dir = tmp_path / "data"
    assert main(["data", "prepare", "--name", TinyTrees.name, "--data-dir", str(data_dir)]) == 0
    alone, two = config_for(data_dir, 0), config_for(data_dir, 2)
    code, whole = run_on_one_device(alone, tmp_path / "whole")
    assert code == FINISHED
    with monkeypatch.context() as patch:
        StopAt(patch, 5)
        assert run_on_one_device(two, tmp_path / "broken")[0] == PREEMPTED == 75
    code, broken = run_on_one_device(two, tmp_path / "broken")
    assert code == FINISHED
    assert int(whole.step) == int(broken.step) == 6
    jax.tree.map(np.testing.assert_array_equal, whole, broken)
    log = (tmp_path / "broken" / "log.txt").read_text()
    assert "24 pictures, 6 steps of 8" in log
    assert "resumed at step 5 of 6" in log
