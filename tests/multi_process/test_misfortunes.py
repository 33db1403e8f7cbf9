"""Processes that die, are stopped, do not find each other or differ: one sentence, in time, and nothing lost."""

from __future__ import annotations

import os
import re
import signal
import time

import numpy as np
import pytest

from tests.interop.checkpoints import drawn_model, tokenizer_config
from tests.multi_process.conftest import CONFIG, checkpoint, finished, free_address, steps
from var_jax.model_directory import save_model
from var_jax.parallel import watch

pytestmark = pytest.mark.campaign

DIES, STOPS, WAITS = (f"tests.multi_process.probes:{name}" for name in ("dies_in", "is_stopped", "waits"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    save_model(folder, drawn_model(tokenizer_config(base_channels=8, norm_groups=4), transformer=None))
    return folder


def training(tokenizer, workdir):
    """Twelve steps: saved every second one, evaluated every eighth."""
    changes = {"steps": 12, "checkpoint_every": 2, "evaluate_every": 8, "tokenizer": tokenizer}
    changed = [f"--config.{name}={value}" for name, value in changes.items()]
    return ["train", "--config", f"{CONFIG}:transformer", *changed, "--workdir", workdir]


def test_one_of_four_dies_three_times_and_is_stopped_once(launcher, tokenizer, tmp_path):
    """In a step, a save and an evaluation; then SIGTERM; what is learned in the end is what four learn undisturbed."""
    broken, whole = training(tokenizer, tmp_path / "broken"), training(tokenizer, tmp_path / "whole")
    for phase in ("step", "save", "evaluation"):
        die_together(launcher.all(4, *broken, other=(2, DIES, [phase])))
    saved = steps(tmp_path / "broken")[-1]
    assert saved in (4, 6)  # the last save may not have been over

    four = launcher.all(4, *broken, other=(1, STOPS, []))
    assert [process.code() for process in four] == [75] * 4, [process.printed() for process in four]
    (stopped,) = re.findall(r"stopped at step (\d+) of 12", four[0].printed())
    assert saved <= int(stopped) < 12  # SIGTERM may come before the first step
    assert steps(tmp_path / "broken")[-1] == int(stopped)

    printed = finished(launcher.all(4, *broken))
    assert f"resumed at step {stopped} of 12" in printed[0]
    assert re.search(r"\d+ s in \d runs: init \d+%, compile", printed[0])
    finished(launcher.all(4, *whole))
    learned, expected = checkpoint(tmp_path / "broken", 12), checkpoint(tmp_path / "whole", 12)
    assert len(learned) == len(expected) > 20
    for name, array in expected.items():
        np.testing.assert_array_equal(array, learned[name], err_msg=name)


def die_together(processes):
    """The third one is killed, and the others end by a sentence that names it."""
    assert processes[2].code() == -signal.SIGKILL
    died, survivors = time.monotonic(), [processes[index] for index in (0, 1, 3)]
    codes = [process.code(within=60.0) for process in survivors]
    assert time.monotonic() - died <= 60.0  # what is promised, and no speed
    assert codes == [1, 1, 1], [process.printed() for process in survivors]
    for process in survivors:
        assert re.search(r"process 2 \(.+\) has died, last in \w+", process.printed())


@pytest.mark.parametrize(
    ("index", "number", "code", "sentence"),
    [
        (0, signal.SIGKILL, 1, r"process 0 \(.+\) has died, last in step of step 7"),
        (1, signal.SIGKILL, 1, r"process 1 \(.+\) has died, last in step of step 7"),
        (0, signal.SIGSTOP, 1, r"process 0 \(.+\) has died: not heard of for \d+ s, last in step of step 7"),
        (1, signal.SIGSTOP, 1, r"process 1 \(.+\) has died: not heard of for \d+ s, last in step of step 7"),
        (0, signal.SIGUSR1, 2, "process 0 ended: no such thing"),
        (1, signal.SIGUSR1, 2, "process 1 ended: no such thing"),
        (0, signal.SIGTERM, 75, "process 0 was stopped by SIGTERM: the same command goes on from here"),
        (1, signal.SIGTERM, 75, "process 1 was stopped by SIGTERM: the same command goes on from here"),
    ],
)
def test_one_of_three_meets_a_misfortune(launcher, index, number, code, sentence):
    """Process 0, which the others lean on, or another one: all others end in time, and say why."""
    address = free_address()
    three = [launcher.start(["--processes", f"{address},3,{index}"], WAITS, 1) for index in range(3)]
    waited(lambda: all("in a step" in process.printed() for process in three))
    time.sleep(2.5)  # the first beat in it has been sent
    os.kill(three[index].number, number)
    since, others = time.monotonic(), [process for process in three if process is not three[index]]
    codes = [process.code(within=60.0) for process in others]
    assert time.monotonic() - since <= 60.0
    assert codes == [code] * 2, [process.printed() for process in others]
    for process in others:
        (line,) = re.findall("^var-jax: (.+); this was process [0-2] of 3$", process.printed(), re.MULTILINE)
        assert re.fullmatch(sentence, line)
    os.kill(three[index].number, signal.SIGKILL)
    assert three[index].code() in (code, -signal.SIGKILL)


def waited(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def refusals(processes):
    """The one line of each, after all were refused in time."""
    lines = []
    for process in processes:
        assert process.code(within=60.0) == 2, process.printed()
        (line,) = (line for line in process.printed().splitlines() if line.startswith("var-jax"))
        assert "Traceback" not in process.printed()
        lines.append(line)
    return lines


def test_a_cpu_where_a_tpu_was_asked_for(launcher, tmp_path):
    command = ["train", "--config", f"{CONFIG}:tokenizer", "--workdir", tmp_path / "run", "--platform", "tpu"]
    (alone,) = refusals([launcher.start([*command, "--processes", "off"])])
    assert "platform 'tpu' was requested, JAX found cpu; see that var_jax[tpu] is installed" in alone
    for line in refusals(launcher.all(2, *command)):
        assert "platform 'tpu' was requested, JAX found cpu" in line
    assert not (tmp_path / "run").exists()


def test_other_versions(launcher, tmp_path):
    command = ["train", "--config", f"{CONFIG}:tokenizer", "--workdir", tmp_path / "run"]
    other = (1, "tests.multi_process.probes:has_another_jaxlib", [])
    for line in refusals(launcher.all(3, *command, other=other)):
        assert re.search(r"jaxlib is [\d.]+ in process 0 on \S+ and 0\.0\.1 in process 1 on \S+; install", line)


def test_a_wrong_count(launcher, tmp_path):
    command = ["train", "--config", f"{CONFIG}:tokenizer", "--workdir", tmp_path / "run", "--processes"]
    address = free_address()
    two = [launcher.start([*command, f"{address},2,0"]), launcher.start([*command, f"{address},3,2"])]
    for line in refusals(two):
        assert re.search(r"process 2 on \S+ is one of 3, process 0 on \S+ one of 2; give all of them the same", line)


def test_one_that_does_not_come(launcher, tmp_path):
    command = ["train", "--config", f"{CONFIG}:tokenizer", "--workdir", tmp_path / "run", "--meet-within", "8"]
    address = free_address()
    two = [launcher.start([*command, "--processes", f"{address},3,{index}"]) for index in (0, 2)]
    for line in refusals(two):
        assert "2 of 3 processes came within 8 s, missing: 1; start them too" in line


def test_nobody_to_reach(launcher, tmp_path):
    command = ["train", "--config", f"{CONFIG}:tokenizer", "--workdir", tmp_path / "run", "--meet-within", "1"]
    address = free_address()
    (line,) = refusals([launcher.start([*command, "--processes", f"{address},2,1"])])
    assert f"the first process, at {address}, could not be reached for 1 s" in line


def test_the_watch_finds_out_before_jax():
    """JAX counts from a sign of life that may lie half of its patience back."""
    assert watch.HEARTBEAT_SECONDS / 2 >= watch.SILENT_SECONDS + 10
