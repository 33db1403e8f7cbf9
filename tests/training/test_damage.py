"""What breaks around a run: pictures, disk, directory, checkpoints, clock. Nothing learned is lost, and one line says
what to do."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from PIL import Image

from tests.training import tiny
from tests.training.runs import equal, last_state
from tests.training.test_checkpoints import by_an_older_version, flip, largest
from var_jax.cli.main import main
from var_jax.data.damage import BadPictures
from var_jax.data.folder import Folder
from var_jax.errors import InputError
from var_jax.training import reporting
from var_jax.training.lock import held
from var_jax.training.loop import FINISHED, train
from var_jax.training.reporting import Clock, Reporter
from var_jax.training_directory import read_any_model

pytestmark = pytest.mark.usefixtures("one_device")


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)).save(path)


def bomb() -> bytes:
    """The head of a PNG of 60000 x 60000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = struct.pack(">I", 100) + b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + data


def damaged_folder(root: Path) -> dict[str, str]:
    """Forty pictures, and five damaged ones; the damaged ones' names and what is said of them."""
    for i in range(40):
        picture(root / f"class{i % 2}" / f"{i:02}.jpg", i)
    whole = (root / "class0" / "00.jpg").read_bytes()
    kinds = {
        "zero": (b"", "none of the formats that are read"),
        "text": (b"not a picture at all", "none of the formats that are read"),
        "short": (whole[: len(whole) * 2 // 3], "runcated"),
        "rubbish": (os.urandom(400), "none of the formats that are read"),
        "bomb": (bomb(), "too many pixels"),
    }
    for name, (content, _) in kinds.items():
        (root / "class1" / f"{name}.jpg").write_bytes(content)
    return {name: said for name, (_, said) in kinds.items()}


def folder_run(root, **changes):
    data = {"kind": "folder", "options": {"path": str(root), "validation_share": 0.2}, "bad_share": 0.3}
    config = tiny.tokenizer()
    with config.unlocked():
        config.data.options = data.pop("options")
        config.update({"data": data, "evaluate_pictures": 99} | changes)
    return config


def test_damaged_pictures_are_left_out_and_named(tmp_path, capsys):
    kinds = damaged_folder(tmp_path / "pictures")
    config = folder_run(tmp_path / "pictures")
    picture(tmp_path / "pictures" / "class0" / "more" / "1.png")
    (tmp_path / "pictures" / "class1" / "1.heic").write_bytes(b"?")
    assert train(config, str(tmp_path / "run")) == FINISHED
    lines = (tmp_path / "run" / "bad_pictures.txt").read_text().splitlines()
    assert len(lines) == len(kinds)
    for name, said in kinds.items():
        (line,) = (line for line in lines if f"{name}.jpg" in line)
        assert line.startswith(("train picture ", "validation picture "))
        assert said in line
    printed = capsys.readouterr().out
    assert printed.count("left out: ") == len(kinds)
    for said in ("pictures in folders inside a folder of pictures: 1 (class0/more/1.png)", "other kinds: 1 (1 .heic)"):
        assert f"{tmp_path / 'pictures'}: not taken, " in printed
        assert said in (tmp_path / "run" / "log.txt").read_text()
    with config.unlocked():
        config.data.bad_share = 0.01
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(InputError, match=r"cannot be read so far, more than the share of 0.01 .*repair or remove"):
        train(config, str(tmp_path / "run"))


def test_data_check_lists_the_damage(tmp_path, capsys):
    for i in range(60):
        picture(tmp_path / "a" / f"{i:02}.png", i)
    split = [source.file(0) for source in (Folder("train", tmp_path, 0.1), Folder("validation", tmp_path, 0.1))]
    split[0].write_bytes(b"")
    arguments = ["data", "check", "--kind", "folder", "--path", str(tmp_path), "--validation-share", "0.1", "--read"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"train picture 0: {split[0]}: cannot be read" in printed
    assert "1 of " in printed
    assert "will be left out" in printed


def test_a_picture_is_counted_once(tmp_path):
    damaged_folder(tmp_path)
    source = Folder("train", tmp_path, 0.01)
    bad = [i for i in range(len(source)) if not source.file(i).stem.isdigit()]
    notes = BadPictures(source, "train", 0.5)
    assert len(notes.add(np.array([-1, bad[0], bad[1], bad[0]]))) == 2
    assert notes.add(np.array([bad[1], -1])) == []
    assert len(notes.lines()) == 2
    with pytest.raises(InputError, match="2 of "):
        BadPictures(source, "train", 1.5 / len(source)).add(np.array(bad[:2]))


# A run and its checkpoints.


@pytest.fixture
def finished(tiny_run):
    return tiny_run / "tokenizer"


def test_a_run_goes_on_from_the_checkpoint_before(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    flip(largest(tmp_path / "run" / "checkpoints" / "6" / "weights"))
    with pytest.raises(InputError, match="the checkpoint is damaged .*resume the run"):
        read_any_model(tmp_path / "run")
    assert train(tiny.tokenizer(), str(tmp_path / "run")) == FINISHED
    assert "resumed at step 3 of 6" in capsys.readouterr().out
    assert "WARNING: the checkpoint of step 6 is damaged" in (tmp_path / "run" / "log.txt").read_text()
    equal(last_state(tmp_path / "run"), last_state(finished))


def test_sampling_from_a_checkpoint_without_checksums(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "6"
    by_an_older_version(newest)
    assert read_any_model(tmp_path / "run").source == {"tokenizer": "trained for 6 steps"}
    shutil.copy(finished / "checkpoints" / "6" / "_CHECKPOINT_METADATA", newest)
    with pytest.raises(InputError, match="the checkpoint is damaged .has no checksums.json.*resume the run"):
        read_any_model(tmp_path / "run")


# Directory and disk.


def test_a_directory_in_use_is_refused_and_a_killed_run_s_is_not(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    holding = "import sys, time, etils.epath as e\nfrom var_jax.training.lock import held\n"
    holding += "with held(e.Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)\n"
    command = [sys.executable, "-c", holding, tmp_path / "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            before = sorted((tmp_path / "run").rglob("*"))
            with pytest.raises(InputError, match=f"in use by a living run .process {other.pid} on .*choose another"):
                train(tiny.tokenizer(), str(tmp_path / "run"))
            assert sorted((tmp_path / "run").rglob("*")) == before
        finally:
            other.send_signal(signal.SIGKILL)
    assert train(tiny.tokenizer(), str(tmp_path / "run")) == FINISHED
    assert f"process {other.pid} on " in capsys.readouterr().out
    with held(epath.Path(tmp_path / "run")) as killed:
        assert killed is None


def test_a_damaged_lock_is_no_obstacle(tmp_path):
    (tmp_path / "lock").write_bytes(b"\xff\xfe")
    with held(epath.Path(tmp_path)) as killed:
        assert killed == "whose process is unknown"
    with held(epath.Path(tmp_path)) as killed:
        assert killed is None


@pytest.mark.parametrize("name", ["config", "stage", "tokenizer", "format", None])
def test_a_damaged_description_is_one_line(finished, tmp_path, name):
    (tmp_path / "run" / "checkpoints" / "6").mkdir(parents=True)
    file = tmp_path / "run" / "training.json"
    content = json.loads((finished / "training.json").read_text())
    for damaged in (
        {key: value for key, value in content.items() if key != name},
        content | {name or "x": 7},
        "[]",
        "",
    ):
        if name is None and isinstance(damaged, dict):
            continue
        file.write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
        for read in (lambda: train(tiny.tokenizer(), str(tmp_path / "run")), lambda: read_any_model(tmp_path / "run")):
            with pytest.raises(InputError, match="training.json"):
                read()


def test_a_directory_that_cannot_be_made(tmp_path):
    with pytest.raises(InputError, match="/proc/var_jax/run: cannot be written .*choose a place you may write to"):
        train(tiny.tokenizer(), "/proc/var_jax/run")


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC])
def test_a_log_that_cannot_be_written(finished, tmp_path, monkeypatch, code):
    shutil.copytree(finished, tmp_path / "run")

    def refuse(path, text):
        raise OSError(code, os.strerror(code), os.fspath(path))

    with monkeypatch.context() as patch:
        patch.setattr(reporting, "_append", refuse)
        with pytest.raises(InputError, match=f"{os.strerror(code)}.*the same command goes on from the last checkpoint"):
            train(tiny.tokenizer(), str(tmp_path / "run"))
    assert train(tiny.tokenizer(), str(tmp_path / "run")) == FINISHED


def test_what_a_kill_leaves_of_the_first_file_is_no_foreign_content(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "training.json.tmp").write_text('{"half')
    assert train(tiny.tokenizer(), str(tmp_path / "run")) == FINISHED


def test_half_a_line_of_metrics_is_taken_away(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    reporter = Reporter(epath.Path(tmp_path))
    reporter.metrics(2, "train", {"loss": 1.0})
    reporter.close()
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 3, "ki\xff\n7\n')
    assert [line["step"] for line in Reporter(epath.Path(tmp_path)).lines()] == [2]  # the first has no kind
    (tmp_path / "metrics.jsonl").write_text(
        (tmp_path / "metrics.jsonl").read_text(errors="replace").split('{"step": 3')[0]
    )
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_a_clock_that_goes_backwards(monkeypatch):
    times = iter([100.0, 90.0, 90.0, 90.0, 95.0, 97.0, 97.0])
    monkeypatch.setattr(reporting.time, "monotonic", lambda: next(times))
    clock = Clock(0, 10)
    clock.waiting = -3.0
    assert clock.read(2, 8) == {"pictures_per_second": 0.0, "data_wait": 0.0, "seconds_left": 0.0}
    assert clock.read(4, 8) == {"pictures_per_second": 0.0, "data_wait": 0.0, "seconds_left": 0.0}
    assert clock.read(6, 8) == {"pictures_per_second": 8.0, "data_wait": 0.0, "seconds_left": 4.0}
