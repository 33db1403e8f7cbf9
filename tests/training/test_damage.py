"""What breaks around a run: pictures, disk, directory, checkpoints, clock. Nothing learned is lost, and one line says
what to do."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from PIL import Image

from tests.training import tiny
from tests.training.runs import equal, last_state
from var_jax.cli.main import main
from var_jax.data.damage import BadPictures
from var_jax.data.folder import Folder
from var_jax.errors import InputError
from var_jax.formats.bucket import open_folder
from var_jax.formats.checksums import damage, seal
from var_jax.training import reporting
from var_jax.training.checkpoints import Checkpoints
from var_jax.training.lock import held
from var_jax.training.loop import FINISHED, train
from var_jax.training.reporting import Clock, Reporter
from var_jax.training.step import TrainState
from var_jax.training_directory import check_path, read_any_model

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


# Checkpoints.


def state(number: int) -> TrainState:
    noise = np.random.default_rng(number).standard_normal(5000, np.float32)
    shapes = {"ema": None, "opt_state": (jnp.ones(3),), "counts": None}
    rest = {name: None for name in TrainState._fields if name not in ("step", "bad_step", "params", *shapes)}
    return TrainState(
        step=jnp.int32(number), bad_step=jnp.int32(-1), params={"a": jnp.asarray(noise)}, **shapes, **rest
    )


def abstract() -> TrainState:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state(0))


def saved(folder, figures=(None, None), keep=2) -> epath.Path:
    """Checkpoints of steps 1, 2, ... with these losses."""
    checkpoints = Checkpoints(epath.Path(folder), keep)
    for step, loss in enumerate(figures, start=1):
        checkpoints.save(state(step), step, None if loss is None else {"loss": loss})
    checkpoints.close()
    return epath.Path(folder)


def largest(folder: Path) -> Path:
    return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "flipped": (flip, "does not match its checksum"),
    "short": (lambda file: os.truncate(file, file.stat().st_size // 2), "bytes of"),
    "gone": (Path.unlink, "is missing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_makes_place_for_the_one_before(tmp_path, kind):
    do, said = DAMAGE[kind]
    workdir, lines = saved(tmp_path), []
    do(largest(tmp_path / "checkpoints" / "2"))
    checkpoints = Checkpoints(workdir, 2, lines.append)
    restored = checkpoints.restore(abstract())
    equal(restored.params, state(1).params)
    assert len(lines) == 1
    assert lines[0].startswith("WARNING: the checkpoint of step 2 is damaged")
    assert said in lines[0]
    checkpoints.save(state(2), 2)
    checkpoints.close()
    equal(Checkpoints(workdir, 2).restore(abstract()).params, state(2).params)
    assert [item.name.split("_")[0] for item in (tmp_path / "damaged_checkpoints").iterdir()] == ["2"]


def by_an_older_version(checkpoint: Path) -> None:
    """Makes it a checkpoint of a run that was killed before it wrote the checksums, as older versions could be."""
    (checkpoint / "checksums.json").unlink()
    file = checkpoint / "_CHECKPOINT_METADATA"
    file.write_text(file.read_text().replace('{"sealed": true}', "{}"))


def test_damage_that_only_reading_finds(tmp_path):
    """An older version's checkpoints without checksums: the damaged one is put aside once it cannot be read."""
    workdir, lines = saved(tmp_path), []
    for step in "12":
        by_an_older_version(tmp_path / "checkpoints" / step)
    for file in (tmp_path / "checkpoints" / "2" / "weights").rglob("*"):
        if file.is_file():
            os.truncate(file, 0)
    with pytest.raises(InputError, match=r"no checkpoint can be read \(step 2: .*; step 1: has no checksums.json"):
        Checkpoints(workdir, 2, lines.append).restore(abstract())
    assert "step 2 has no checksums, as an older var_jax left it when killed: used" in lines[0]


def test_checksums_are_there_as_soon_as_the_checkpoint_is(tmp_path, monkeypatch):
    """Its directory takes its name with them inside, so that a kill at any moment leaves none without."""
    seen = []
    rename = epath.gpath.PosixGPath.rename

    def renamed(self, target):
        if epath.Path(target).name == "1":
            seen.append(sorted(item.name for item in self.iterdir() if item.is_file()))
        return rename(self, target)

    monkeypatch.setattr(epath.gpath.PosixGPath, "rename", renamed)
    saved(tmp_path, (None,))
    assert seen == [["_CHECKPOINT_METADATA", "checksums.json", "commit_success.txt"]]
    assert damage(tmp_path / "checkpoints" / "1") is None


UNSEALED = {"absent": Path.unlink, "empty": lambda file: os.truncate(file, 0), "{}": lambda file: file.write_text("{}")}


@pytest.mark.parametrize("kind", UNSEALED)
def test_checksums_that_are_gone_are_damage(tmp_path, kind):
    workdir, lines = saved(tmp_path), []
    for step, used in ((2, state(1)), (1, None)):
        UNSEALED[kind](tmp_path / "checkpoints" / str(step) / "checksums.json")
        if used is None:
            with pytest.raises(InputError, match=r"no checkpoint can be read \(step 1: .*checksums.json.*restore one"):
                Checkpoints(workdir, 2, lines.append)
        else:
            checkpoints = Checkpoints(workdir, 2, lines.append)
            equal(checkpoints.restore(abstract()).params, used.params)
            checkpoints.close()
    assert len(lines) == 1
    assert "step 2 is damaged" in lines[0]
    assert "checksums.json" in lines[0]


def test_an_older_version_s_checkpoint_without_checksums(tmp_path):
    """The one before, which has them, is used; where none has, the newest."""
    for step in (1, 2):
        workdir, lines = saved(tmp_path / str(step)), []
        for without in range(3 - step, 3):
            by_an_older_version(workdir / "checkpoints" / str(without))
        checkpoints = Checkpoints(workdir, 2, lines.append)
        equal(checkpoints.restore(abstract()).params, state(step).params)
        checkpoints.close()
        assert f"step 2 {('is damaged (has no checksums', 'has no checksums, as an older')[step - 1]}" in lines[0]


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "metrics/metrics"])
def test_a_flipped_bit_in_what_orbax_reads_of_all_checkpoints(tmp_path, step, name):
    workdir, lines = saved(tmp_path, (2.0, 1.0)), []
    flip(tmp_path / "checkpoints" / str(step) / name)
    checkpoints = Checkpoints(workdir, 2, lines.append)
    assert len(lines) == 1
    assert f"the checkpoint of step {step} is damaged ({name} does not match its checksum)" in lines[0]
    equal(checkpoints.restore(abstract()).params, state(3 - step).params)
    checkpoints.close()


def test_an_older_version_s_checkpoints_that_orbax_cannot_open(tmp_path):
    workdir = saved(tmp_path)
    for step in "12":
        by_an_older_version(tmp_path / "checkpoints" / step)
    file = tmp_path / "checkpoints" / "1" / "_CHECKPOINT_METADATA"
    file.write_text(file.read_text().replace("item_handlers", "iteM_handlers").replace("{}", '{"a": 1}'))
    with pytest.raises(InputError, match=r"checkpoints: cannot be read \(ValueError: .*bring it back from a copy"):
        Checkpoints(workdir, 2)


def test_what_was_saved_is_read_back(tmp_path):
    checkpoints = Checkpoints(epath.Path(tmp_path), 2)
    checkpoints.save(state(1), 1)
    checkpoints.wait()
    checkpoints.read_back(state(1))
    with pytest.raises(InputError, match="step 1 cannot be read back .other numbers than were written"):
        checkpoints.read_back(state(2))
    shutil.rmtree(tmp_path / "checkpoints" / "1" / "weights" / "d")
    with pytest.raises(InputError, match="step 1 cannot be read back"):
        checkpoints.read_back(state(1))
    checkpoints.close()


ODD = ("[p]/a**b", "run*", "q?", "{a,b}", "%20 #", "new\nline", " a ", "7.orbax-checkpoint-tmp-3", "~", "ü日", "a:b'\"")


@pytest.mark.parametrize("name", ODD)
def test_any_character_in_a_path(tmp_path, name):
    workdir = open_folder(tmp_path / name)
    workdir.mkdir(parents=True)
    check_path(workdir)
    saved(workdir, (None,))
    checkpoints = Checkpoints(workdir, 2)
    equal(checkpoints.restore(abstract()).params, state(1).params)
    checkpoints.close()


@pytest.mark.parametrize("name", ["back\\slash", "gs:", "caf\udce9"])
def test_a_path_that_cannot_hold_checkpoints_is_refused_at_the_start(tmp_path, name):
    with pytest.raises(InputError, match="choose another path") as refused:
        train(tiny.tokenizer(), str(tmp_path / name / "run"))
    str(refused.value).encode()
    assert not list(tmp_path.iterdir())


def test_brackets_in_the_path_of_a_run(tmp_path, monkeypatch):
    (tmp_path / "[parent]").mkdir()
    monkeypatch.chdir(tmp_path / "[parent]")
    assert train(tiny.tokenizer(), "run[v1]") == FINISHED
    assert read_any_model("run[v1]").source == {"tokenizer": "trained for 6 steps"}
    assert train(tiny.tokenizer(), str(tmp_path / "[parent]" / "run[v1]")) == FINISHED


def test_no_whole_checkpoint_is_an_error(tmp_path):
    workdir = saved(tmp_path)
    for step in "12":
        flip(largest(tmp_path / "checkpoints" / step))
    with pytest.raises(InputError, match=r"no checkpoint can be read \(step 2: .*; step 1: .*restore one"):
        Checkpoints(workdir, 2)
    assert sorted(item.name for item in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]


def test_the_best_checkpoint_is_remembered_by_the_next_run(tmp_path):
    workdir = saved(tmp_path, (3.0, 1.0, 2.0))
    checkpoints = Checkpoints(workdir, 1)
    for step in (4, 5):
        checkpoints.save(state(step), step)
    checkpoints.close()
    assert sorted(item.name for item in (tmp_path / "checkpoints").iterdir()) == ["2", "5"]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    workdir = saved(tmp_path, (None,))
    checkpoints = Checkpoints(workdir, 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(InputError, match="a checkpoint could not be written .*free some space") as refused:
            checkpoints.save(state(2), 2)
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(refused.value)
    assert "File too large" in str(refused.value)
    again = Checkpoints(workdir, 2)
    equal(again.restore(abstract()).params, state(1).params)
    again.save(state(2), 2)
    again.close()


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (
            ValueError("RESOURCE_EXHAUSTED: ... Failed writing: [OS error 28: No space left on device]"),
            "free some space",
        ),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "free some space"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "let this user write there"),
        (ValueError(f"PERMISSION_DENIED: {os.strerror(errno.EROFS)}"), "let this user write there"),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), "let nobody else move, remove or make files"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "see to the disk"),
    ],
)
def test_what_to_do_when_a_checkpoint_cannot_be_written(tmp_path, monkeypatch, error, remedy):
    checkpoints = Checkpoints(epath.Path(tmp_path), 2)

    def fail(*args, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "save", fail)
        patch.setattr(sys, "excepthook", sys.excepthook)
        with pytest.raises(InputError, match=f"could not be written .*{remedy}.*start the same command") as refused:
            checkpoints.save(state(1), 1)
    assert ("free some space" in str(refused.value)) == (remedy == "free some space")
    checkpoints.close()


def test_seal(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_bytes(b"content")
    assert damage(tmp_path) == "has no checksums.json"
    seal(tmp_path)
    assert damage(tmp_path) is None
    (tmp_path / "in" / "file").write_bytes(b"kontent")
    assert damage(tmp_path) == "in/file does not match its checksum"
    assert damage(tmp_path, "other") is None
    for content, said in (("{}", "names no file"), ("", "cannot be read"), ('{"a": 1}', "cannot be read")):
        (tmp_path / "checksums.json").write_text(content)
        assert f"checksums.json {said}" in damage(tmp_path)


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
