"""Many pictures by real processes: killed twice and restarted, and shared by two: the bytes of one unbroken run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

CLASSES, EACH = 5, 60
DEADLINE = 300.0


@pytest.fixture(scope="module")
def sample(pair):
    """Starts `var-jax sample` in a process with one device."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}

    def start(out, *options):
        command = [sys.executable, "-m", "var_jax.cli.main", "sample", "--model", pair.model, "--per-class", EACH]
        command += ["--batch", 4, "--seed", 7, "--out", out, *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([str(word) for word in command], env=environment, **pipes)

    return start


def finished(process):
    printed, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, printed
    return printed


@pytest.fixture(scope="module")
def whole(sample, tmp_path_factory):
    """What one unbroken run leaves, as a file and as a folder."""
    folder = tmp_path_factory.mktemp("whole")
    for name in ("a.npz", "a"):
        finished(sample(folder / name))
    return folder


def content(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())} if path.is_dir() else path.read_bytes()


def drawn(out):
    """How many pictures are there."""
    if out.suffix == ".npz":
        done = Path(f"{out}.part", "done")
        return sum(done.read_bytes()) if done.exists() else 0
    return sum(1 for _ in out.glob("*.png"))


def kill_after(process, out, pictures):
    """SIGKILL once `out` holds so many."""
    began = time.monotonic()
    while drawn(out) < pictures and process.poll() is None and time.monotonic() - began < DEADLINE:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.campaign
@pytest.mark.parametrize("name", ["a.npz", "a"])
def test_killed_twice_and_restarted(sample, whole, tmp_path, name):
    out, total = tmp_path / name, CLASSES * EACH
    for pictures in (40, 120):
        kill_after(sample(out), out, pictures)
        assert pictures <= drawn(out) < total
    before = drawn(out)
    assert f"{before}/{total} pictures are there already" in finished(sample(out))
    assert content(out) == content(whole / name)
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.campaign
def test_two_processes_share_the_work(sample, whole, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [sample(tmp_path / "a.npz", "--processes", f"{address},2,{index}") for index in range(2)]
    printed = [finished(process) for process in both]
    assert all(f"{CLASSES * EACH // 2}/{CLASSES * EACH // 2} pictures" in text for text in printed)
    assert content(tmp_path / "a.npz") == content(whole / "a.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.campaign
def test_the_file_and_the_folder_hold_the_same(whole):
    with np.load(whole / "a.npz") as file:
        assert file["arr_0"].shape == (CLASSES * EACH, 6, 6, 3)
        assert len(np.unique(file["arr_0"], axis=0)) > 0.9 * CLASSES * EACH
    assert len(list((whole / "a").glob("*.png"))) == CLASSES * EACH


@pytest.mark.parametrize("which", ["two", "localhost,2,0", "localhost:1,2,2", "localhost:1,0,0"])
def test_which_processes(refused, tmp_path, which):
    assert f"processes '{which}': expected auto" in refused("sample", "--out", tmp_path / "a", "--processes", which)


def test_a_single_picture_is_not_shared(refused, tmp_path):
    line = refused("sample", "--out", tmp_path / "a.png", "--processes", "localhost:1,2,0")
    assert "--processes: share a folder or an .npz of many pictures; leave it out" in line
