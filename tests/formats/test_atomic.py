"""Files and folders appear whole or not at all, and what stood there before survives a failure."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.formats.samples import only_files_in
from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_directory, atomic_file

BOTH = pytest.mark.parametrize("atomic", [atomic_file, atomic_directory])


def write(temporary: Path, text: str) -> None:
    (temporary / "part.txt" if temporary.is_dir() else temporary).write_text(text)


def test_a_file_appears_at_the_end_only(tmp_path):
    target = tmp_path / "new" / "deep" / "file.txt"
    with atomic_file(target) as temporary:
        assert temporary.parent == target.parent
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert only_files_in(tmp_path) == ["new", "new/deep", "new/deep/file.txt"]


def test_a_folder_appears_at_the_end_only(tmp_path):
    target = tmp_path / "new" / "model"
    with atomic_directory(target) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "a.txt").write_text("whole")
        assert not target.exists()
    assert only_files_in(tmp_path) == ["new", "new/model", "new/model/sub", "new/model/sub/a.txt"]


def test_an_old_file_is_replaced_and_a_link_stays_a_link(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("file.txt")
    with atomic_file(str(tmp_path / "link.txt")) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "file.txt").read_text() == "new"
    assert (tmp_path / "link.txt").is_symlink()


def test_the_mode_is_that_of_any_new_file(tmp_path):
    (tmp_path / "plain.txt").touch()
    with atomic_file(tmp_path / "file.txt") as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT, 0o600))  # as a library does that writes a file of its own
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == stat.S_IMODE((tmp_path / "plain.txt").stat().st_mode)


def test_an_empty_folder_is_taken_over(tmp_path):
    (tmp_path / "model").mkdir()
    with atomic_directory(tmp_path / "model") as temporary:
        write(temporary, "whole")
    assert only_files_in(tmp_path) == ["model", "model/part.txt"]


@BOTH
@pytest.mark.parametrize("failure", [KeyError("ours"), KeyboardInterrupt(), InputError("bad input")])
def test_a_failure_in_the_body_leaves_nothing(tmp_path, atomic, failure):
    (tmp_path / "kept").mkdir()
    with pytest.raises(type(failure)) as caught, atomic(tmp_path / "kept" / "new" / "deep" / "target") as temporary:
        write(temporary, "half")
        raise failure
    assert caught.value is failure
    assert only_files_in(tmp_path) == ["kept"]


def test_a_failure_leaves_the_old_file_untouched(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    with pytest.raises(KeyError), atomic_file(tmp_path / "file.txt") as temporary:
        temporary.write_text("half")
        raise KeyError
    assert (tmp_path / "file.txt").read_text() == "old"
    assert only_files_in(tmp_path) == ["file.txt"]


def test_a_parent_that_somebody_else_filled_stays(tmp_path):
    with pytest.raises(KeyError), atomic_file(tmp_path / "new" / "target"):
        (tmp_path / "new" / "other").touch()
        raise KeyError
    assert only_files_in(tmp_path) == ["new", "new/other"]


@BOTH
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_what_the_disk_refuses_is_bad_input(tmp_path, atomic, code):
    target = tmp_path / "new" / "target"
    with pytest.raises(InputError) as caught, atomic(target) as temporary:
        write(temporary, "half")
        raise OSError(code, os.strerror(code))
    assert str(target) in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    assert ("free some space" in str(caught.value)) == (code == errno.ENOSPC)
    assert only_files_in(tmp_path) == []


def test_a_real_refusal_of_the_system(tmp_path, file_size_limit):
    expected = pytest.raises(InputError, match="big.bin: cannot be written .*free some space")
    with expected, atomic_file(tmp_path / "big.bin") as temporary:
        temporary.write_bytes(bytes(2 * file_size_limit))
    assert only_files_in(tmp_path) == []


@BOTH
@pytest.mark.parametrize("step", ["replace", "fsync", "mkdir"])
def test_permission_denied_at_every_step(tmp_path, atomic, step, monkeypatch):
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    target = tmp_path / "new" / "target"
    expected = pytest.raises(InputError, match="target: cannot be written .Permission denied.; choose a place")
    with expected, monkeypatch.context() as patch:
        patch.setattr(os, step, deny)
        with atomic(target) as temporary:
            write(temporary, "whole")
    assert only_files_in(tmp_path) == []


@BOTH
def test_a_parent_that_is_a_file(tmp_path, atomic):
    (tmp_path / "file").touch()
    expected = pytest.raises(InputError, match="target: cannot be written .Not a directory")
    with expected, atomic(tmp_path / "file" / "sub" / "target"):
        pytest.fail("the body must not run")
    assert only_files_in(tmp_path) == ["file"]


@BOTH
def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path, atomic):
    with pytest.raises(InputError, match="cannot be written"), atomic(tmp_path / ("n" * 300)):
        pytest.fail("the body must not run")


@BOTH
def test_an_error_about_another_file_keeps_its_identity(tmp_path, atomic):
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "target"):
        (tmp_path / "missing.txt").read_text()
    with pytest.raises(TimeoutError), atomic(tmp_path / "target"):
        raise TimeoutError
    assert only_files_in(tmp_path) == []


def test_a_file_may_not_replace_a_folder_or_a_device(tmp_path):
    with pytest.raises(InputError, match="it is a folder"), atomic_file(tmp_path):
        pytest.fail("the body must not run")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"), atomic_file(tmp_path / "pipe"):
        pytest.fail("the body must not run")
    assert only_files_in(tmp_path) == ["pipe"]


def test_a_folder_may_not_replace_anything(tmp_path):
    (tmp_path / "file").touch()
    for taken in (tmp_path / "file", tmp_path):
        with pytest.raises(InputError, match="choose another --out or remove it"), atomic_directory(taken):
            pytest.fail("the body must not run")
    assert only_files_in(tmp_path) == ["file"]


def test_a_folder_that_filled_up_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(InputError, match="model: cannot be written"), atomic_directory(tmp_path / "model"):
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "other").touch()
    assert only_files_in(tmp_path) == ["model", "model/other"]
