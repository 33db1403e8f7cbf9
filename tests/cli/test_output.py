"""Where a command prints to: names of any bytes, a terminal of any encoding, a reader that goes away."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from var_jax.cli.main import main
from var_jax.cli.options import chosen_classes

ESCAPES = "a\x1b[2J\u202e.png"


@pytest.fixture
def folder(tmp_path):
    """Class folders and files of a latin-1 disk."""
    for label in (b"caf\xe9", b"b"):
        for i in range(4):
            (tmp_path / "pictures" / os.fsdecode(label)).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / os.fsdecode(label) / f"{i}.png")
    return tmp_path / "pictures"


def check(folder) -> list[str]:
    return ["data", "check", "--kind", "folder", "--path", str(folder), "--read"]


def strict(monkeypatch):
    """Makes standard output and error those of a terminal that shows ASCII alone; returns a reader of either."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), "ascii", errors="strict") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)

    def printed(name: str) -> str:
        streams[name].flush()
        return streams[name].buffer.getvalue().decode("ascii")

    return printed


def test_names_that_a_terminal_cannot_show(folder, monkeypatch):
    printed = strict(monkeypatch)
    (folder / "b" / os.fsdecode(b"\xe9t\xe9.png")).write_bytes(b"broken")
    (folder / "b" / ESCAPES).write_bytes(b"broken")
    assert main(check(folder)) == 2
    assert r"caf\udce9  " in printed("stdout")
    errors = printed("stderr")
    assert r"pictures/b/\udce9t\udce9.png: cannot be read" in errors + printed("stdout")
    assert r"pictures/b/a\x1b[2J\u202e.png: cannot be read" in errors + printed("stdout")
    assert errors.startswith("var-jax data: ")
    assert errors.count("\n") == 1
    assert main(check(folder / "gr\u00fc\u00dfe")) == 2
    assert printed("stderr").count("\n") == 2


def test_a_class_with_a_control_character(folder, monkeypatch):
    printed = strict(monkeypatch)
    (folder / "a\nb").mkdir()
    assert main(check(folder)) == 2
    assert r"class folder 'a\nb' has a control character in its name; rename it" in printed("stderr")


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("arguments", [None, ["sample", "--help"], ["--version"]], ids=["check", "help", "version"])
def test_a_reader_that_has_gone_is_a_quiet_end(folder, monkeypatch, capfd, arguments, buffered):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=-1 if buffered else 1) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(arguments or check(folder)) == 141
        print("and later ones go nowhere", flush=True)
    assert capfd.readouterr().err == ""


def test_an_error_that_nobody_reads(tmp_path, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        assert main(check(tmp_path / "nowhere")) == 141


def test_another_broken_pipe_keeps_its_traceback(monkeypatch):
    def run(_):
        raise BrokenPipeError

    monkeypatch.setattr("var_jax.cli.data.run", run)
    with pytest.raises(BrokenPipeError):
        main(["data", "check", "--kind", "shapes"])


def test_head(folder):
    command = shlex.join([sys.executable, "-m", "var_jax.cli.main", *check(folder)])
    ended = subprocess.run(
        ["bash", "-c", f"{command} | head -1; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert ended.stdout.splitlines()[0] == "train: 6 pictures in 2 classes"
    assert ended.stdout.splitlines()[1] in ("0", "141")  # faster than head, or not
    assert "Traceback" not in ended.stderr
    assert "BrokenPipe" not in ended.stderr


def test_a_number_that_is_taken_for_a_name_is_said_to_be_one(capsys):
    config = SimpleNamespace(num_classes=12)
    transformer = SimpleNamespace(config=config)
    bundle = SimpleNamespace(transformer=transformer, class_names=tuple(sorted(map(str, range(12)))))
    assert chosen_classes("2,0", bundle) == [4, 0]
    assert capsys.readouterr().out == (
        "note: class '2' is taken for a name, that of the class with id 4; the class with id 2 is '10'\n"
    )
