"""Starts processes that find each other, waits for them, and reads what they leave."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).parent / "tiny_config.py"
COMMAND = "var_jax.cli.main:main"
DEVICES = 4  # over all processes
DEADLINE = 600.0  # a busy machine is no error


class Process:
    """A process of a test, and what it has printed."""

    def __init__(self, launcher: Launcher, number: int, log: Path) -> None:
        self._launcher, self.number, self.log = launcher, number, log

    def code(self, within: float = DEADLINE) -> int:
        """Its exit code (negative: the signal), waited for."""
        until = time.monotonic() + within
        while (code := self._launcher.ask(do="ended", process=self.number)) is None:
            assert time.monotonic() < until, f"still running after {within:.0f} s:\n{self.printed()}"
            time.sleep(0.05)
        return code

    def printed(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Launcher:
    """See launcher.py."""

    def __init__(self, folder: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if "DEVICE" not in name.upper()}
        environment["PYTHONPATH"] = str(ROOT)
        command = [sys.executable, "-m", "tests.multi_process.launcher"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
        self._folder, self._processes = folder, []

    def ask(self, **request: object) -> int | None:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, argv: Sequence[object], call: str = COMMAND, devices: int = DEVICES) -> Process:
        """A process that calls `call` with `argv`."""
        log = self._folder / f"{len(self._processes):03d}.log"
        words = [str(word) for word in argv]
        number = self.ask(do="start", call=call, argv=words, log=str(log), devices=devices)
        self._processes.append(number)
        return Process(self, number, log)

    def all(self, count: int, *argv: object, other: tuple[int, str, list[object]] | None = None) -> list[Process]:
        """`var-jax ARGV` by `count` processes together; `other` is one of them with its own call, and words before."""
        address, started = free_address(), []
        for index in range(count):
            words = [*argv, "--processes", f"{address},{count},{index}"]
            if other is not None and other[0] == index:
                started.append(self.start([*other[2], *words], other[1], DEVICES // count))
            else:
                started.append(self.start(words, devices=DEVICES // count))
        return started

    def close(self) -> None:
        """Ends what a failed test has left running, and the launcher."""
        for number in self._processes:
            if self.ask(do="ended", process=number) is None:
                os.kill(number, signal.SIGKILL)
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    one = Launcher(tmp_path_factory.mktemp("logs"))
    yield one
    one.close()


def free_address() -> str:
    """An address on this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def finished(processes: Sequence[Process]) -> list[str]:
    """What each has printed, after all have ended well."""
    codes = [process.code() for process in processes]
    assert not any(codes), "\n".join(f"--- {code}\n{p.printed()}" for code, p in zip(codes, processes, strict=True))
    return [process.printed() for process in processes]


def checkpoint(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, by name."""
    arrays = {}
    for item in ("weights", "rest"):
        folder = workdir / "checkpoints" / str(step) / item
        with ocp.PyTreeCheckpointer() as reader:  # as numpy arrays: the devices that saved them are not here
            shapes = reader.metadata(folder).item_metadata.tree
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
            tree = reader.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
        leaves = ocp.utils.to_flat_dict(tree, sep="/", keep_empty_nodes=False)
        arrays |= {f"{item}/{name}": np.asarray(leaf) for name, leaf in leaves.items()}
    return arrays


def steps(workdir: Path) -> list[int]:
    """Of the checkpoints that are there."""
    return sorted(int(item.name) for item in (workdir / "checkpoints").iterdir() if item.name.isdigit())


def losses(workdir: Path) -> dict[int, float]:
    """By step, those of the last run that did it."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}
