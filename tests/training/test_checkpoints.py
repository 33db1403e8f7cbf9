"""Checkpoints: sealed, found damaged, read back, and one line where they cannot be written."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from tests.training import tiny
from tests.training.runs import equal
from var_jax.errors import InputError
from var_jax.formats.bucket import open_folder
from var_jax.formats.checksums import damage, seal
from var_jax.training.checkpoints import Checkpoints
from var_jax.training.loop import FINISHED, train
from var_jax.training.step import TrainState
from var_jax.training_directory import check_path, read_any_model

pytestmark = pytest.mark.usefixtures("one_device")


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
        with pytest.raises(InputError, match=f"could not be written .*{remedy}.*start the same command") as refused:
            checkpoints.save(state(1), 1)
    assert ("free some space" in str(refused.value)) == (remedy == "free some space")
    checkpoints.close()


def test_threads_of_a_checkpoint_that_fails_are_silent(tmp_path, monkeypatch):
    shown = []

    def usual(raised):
        shown.append(str(raised.exc_value))

    def raised(message):
        return SimpleNamespace(exc_type=RuntimeError, exc_value=RuntimeError(message), exc_traceback=None)

    monkeypatch.setattr(sys, "unraisablehook", usual)
    for _ in range(2):  # a process may have several runs
        Checkpoints(epath.Path(tmp_path), 2).close()
    for message in ("Event loop is closed", "another"):
        sys.unraisablehook(raised(message))
    assert shown == ["another"]


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
