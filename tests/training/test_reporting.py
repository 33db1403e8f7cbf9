"""What a run reports: the same numbers as JSON lines and, where tensorboardX is installed, as curves."""

from __future__ import annotations

import io
import json
import struct
import sys

import numpy as np
import pytest
from etils import epath

from var_jax.training.reporting import Reporter


def report(folder):
    reporter = Reporter(epath.Path(folder))
    for step in (2, 4):
        reporter.metrics(step, "train", {"loss": np.float32(1 / step)})
    reporter.metrics(4, "validation", {"accuracy_by_scale": np.array([0.5, 0.25])})
    reporter.picture(4, "samples", np.zeros((4, 6, 3), np.uint8))
    reporter.close()


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


WRITTEN = [
    {"step": 2, "kind": "train", "loss": 0.5},
    {"step": 4, "kind": "train", "loss": 0.25},
    {"step": 4, "kind": "validation", "accuracy_by_scale": [0.5, 0.25]},
]


def events(folder):
    """(step, tag, number or None for a picture) of a TensorBoard folder: records of length, check, bytes, check."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    (file,) = folder.iterdir()
    data, found = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event, data = event_pb2.Event.FromString(data[12 : 12 + length]), data[16 + length :]
        for value in event.summary.value:
            number = value.simple_value if value.WhichOneof("value") == "simple_value" else None
            found.append((event.step, value.tag, number))
    return found


def test_curves(tmp_path):
    pytest.importorskip("tensorboardX")
    report(tmp_path)
    assert events(tmp_path / "tensorboard") == [
        (2, "train/loss", 0.5),
        (4, "train/loss", 0.25),
        (4, "validation/accuracy_by_scale/0", 0.5),
        (4, "validation/accuracy_by_scale/1", 0.25),
        (4, "samples", None),
    ]
    assert lines(tmp_path) == WRITTEN


def test_without_tensorboard_everything_else_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    report(tmp_path)
    assert lines(tmp_path) == WRITTEN
    assert {item.name for item in tmp_path.iterdir()} == {"metrics.jsonl", "pictures"}


def test_curves_that_cannot_be_written_stop_nothing(tmp_path, capsys):
    pytest.importorskip("tensorboardX")
    (tmp_path / "tensorboard").write_text("in the way")
    report(tmp_path)
    assert lines(tmp_path) == WRITTEN
    assert "no curves for TensorBoard" in capsys.readouterr().out
    assert "no curves for TensorBoard" in (tmp_path / "log.txt").read_text()


def test_names_of_any_bytes_are_written(tmp_path, monkeypatch):
    """A damaged picture from a latin-1 disk, on a terminal that refuses it; noted once, whatever its characters."""
    terminal = io.TextIOWrapper(io.BytesIO(), "ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", terminal)
    for _ in range(2):
        reporter = Reporter(epath.Path(tmp_path))
        for name in ("\udce9t\udce9.png", "a\nb.png", "a\x85\u2028b.png", "\x1b]0;title\x07.png"):
            reporter.note("bad_pictures.txt", f"train picture 3: {name}: cannot be read")
        reporter.close()
    expected = [r"\udce9t\udce9.png", r"a\nb.png", r"a\x85\u2028b.png", r"\x1b]0;title\x07.png"]
    noted = (tmp_path / "bad_pictures.txt").read_text(encoding="ascii").splitlines()
    assert noted == [f"train picture 3: {name}: cannot be read" for name in expected]
    logged = (tmp_path / "log.txt").read_text(encoding="ascii").splitlines()
    assert [line.split("picture 3: ")[1].split(": ")[0] for line in logged] == expected
    terminal.flush()
    assert terminal.buffer.getvalue().decode().count("left out: ") == 4
