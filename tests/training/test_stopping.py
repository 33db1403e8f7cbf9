"""Signals: in the loop a run saves and says so; before it there is nothing to save, and it says that."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.training import tiny
from tests.training.runs import StopAt, equal, last_state
from var_jax.training import loop
from var_jax.training.checkpoints import Checkpoints
from var_jax.training.lock import held
from var_jax.training.loop import FINISHED, PREEMPTED, train
from var_jax.training.step import StepProgram
from var_jax.training.stopping import Stop

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(autouse=True)
def signals_are_heard():
    """As on a terminal: a shell that starts the tests in the background has SIGINT ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# Blocks the main thread as XLA does when it compiles: Python's own handlers get no turn.
FORKED = """
import hashlib, json, os, signal, sys
from var_jax.training.stopping import Stop

def case(saves, signals):
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.dup2(writing, 1), os.dup2(writing, 2)
        stop = Stop()
        stop.saves, stop.where = saves, "at step 3 of 6"
        with stop.hearing(several=False, ends_process=True):
            if not os.fork():  # the user
                import time
                for number in signals:
                    time.sleep(0.5)
                    os.kill(os.getppid(), number)
                os._exit(0)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 60_000_000)
        os._exit(7)
    os.close(writing)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, os.fdopen(reading).read()

print(json.dumps([case(False, [signal.SIGTERM]), case(False, [signal.SIGHUP]), case(True, [signal.SIGINT] * 2)]))
"""


def test_where_python_gets_no_turn_a_thread_ends_the_process():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=300, check=True)
    terminated, hung_up, interrupted = json.loads(done.stdout)
    assert terminated == hung_up == [75, "stopped at step 3 of 6: the same command goes on from here\n"]
    assert interrupted == [130, "var-jax train: interrupted twice: ended at once, the last checkpoint stays\n"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_in_the_loop_they_are_like_sigterm(tiny_run, tmp_path, monkeypatch, capsys, number):
    with monkeypatch.context() as patch:
        StopAt(patch, 4, number)
        assert train(tiny.tokenizer(), str(tmp_path / "run")) == PREEMPTED
    assert "stopped at step 4 of 6: the same command goes on from here" in capsys.readouterr().out
    assert train(tiny.tokenizer(), str(tmp_path / "run")) == FINISHED
    equal(last_state(tmp_path / "run"), last_state(tiny_run / "tokenizer"))


def hear(number):
    os.kill(os.getpid(), number)
    raise AssertionError("the signal was not heard")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("place", ["restoring", "compiling", "before the directory"])
def test_before_the_loop(tiny_run, tmp_path, monkeypatch, capsys, number, place):
    run, config = tmp_path / "run", tiny.tokenizer(steps=9)
    shutil.copytree(tiny_run / "tokenizer", run)
    training = run / "training.json"
    content = json.loads(training.read_text())
    content["config"]["steps"] = 9
    training.write_text(json.dumps(content))
    before = sorted(run.rglob("*"))
    with monkeypatch.context() as patch:
        if place == "restoring":
            patch.setattr(Checkpoints, "restore", lambda self, abstract: hear(number))
        elif place == "compiling":
            patch.setattr(StepProgram, "__call__", lambda self, *args: hear(number))
        else:
            patch.setattr(loop.build, "make_sources", lambda config: hear(number))
        assert train(config, str(run)) == PREEMPTED
    where = "at step 6 of 9" if place == "compiling" else "before its first step"
    assert capsys.readouterr().out.splitlines()[-1] == f"stopped {where}: the same command goes on from here"
    assert {item for item in run.rglob("*")} - set(before) <= set((run / "tensorboard").iterdir())
    with held(loop.open_folder(run)) as killed:
        assert killed is None
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_interrupt_and_ignored_signals(monkeypatch):
    stop = Stop()
    monkeypatch.setattr(stop, "saves", True)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop.hearing(several=False):
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.heard
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.heard
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGHUP, before)
