"""Words of the command line before any command's work: keys of configs, ~, and values that are refused untouched."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from tests.cli.conftest import run
from var_jax.cli import main as command
from var_jax.cli import train as train_command


@pytest.fixture
def trained(monkeypatch) -> list[tuple[Any, ...]]:
    """The arguments of every training that a command begins; none is done."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(train_command, "train", lambda *arguments, **_: calls.append(arguments) or 0)
    return calls


def test_a_key_and_its_value_may_be_two_words(trained, tmp_path):
    words = ["--config.batch_size", 8, "--config.data.flip=True", "--config.model.pyramid", "1,2", "--processes", "off"]
    assert run("train", "--config", "shapes_tokenizer", "--workdir", tmp_path / "run", *words) == 0
    config, workdir, _ = trained[0]
    assert (config.batch_size, config.data.flip, config.model.pyramid) == (8, True, "1,2")
    assert workdir == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["--config.seed", "-1"], "config seed is -1: expected a whole number from 0"),
        (["--config.seed=-1"], "config seed is -1"),
        (["--config.data.enlarge=0.5"], "config data.enlarge is 0.5: expected a number from 1"),
        (["--config.keep_checkpoints=0"], "config keep_checkpoints is 0: expected a whole number from 1"),
        (["--config.keep_checkpoints=-1"], "config keep_checkpoints is -1"),
        (["--config.batch_size"], "override '--config.batch_size': expected --config.key=value"),
        (["--config.batch_size", "--processes", "off"], "expected --config.key=value"),
        (["--config.batch_size=8", "9"], "'9' is not understood"),
        (["--config.steps=None"], "set one of steps and epochs"),
        (["--config.optimizer.warmup=2"], "config optimizer.warmup is 2: expected a number from 0 to 1"),
    ],
)
def test_a_refused_value_claims_no_directory(refused, tmp_path, words, needle):
    assert needle in refused("train", "--config", "shapes_tokenizer", "--workdir", tmp_path / "run", *words)


def test_a_key_for_a_command_without_configs(refused, tmp_path):
    assert "'--config.seed' is not understood" in refused(
        "export", "--config.seed", "1", "--model", "m", "--out", tmp_path / "x"
    )


def test_a_tilde_is_the_home_folder_wherever_a_path_begins(trained, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    words = ["--config.init_from=~/m", "--config.tokenizer", "~/t", "--config.data.store=~/s"]
    assert run("train", "--config", "shapes_var", "--workdir=~/runs/a", *words) == 0
    config, workdir, _ = trained[0]
    found = (workdir, config.init_from, config.tokenizer, config.data.store)
    assert found == tuple(f"{tmp_path}/{name}" for name in ("runs/a", "m", "t", "s"))
    assert run("data", "check", "--kind", "folder", "--path=~/nothing") == 2
    assert f"{tmp_path}/nothing: no such folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_option_of_every_command_takes_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command._at_home(["~/a", "b~/c", "~", 3, None]) == [f"{tmp_path}/a", "b~/c", str(tmp_path), 3, None]
    assert command._at_home("~nobody") == "~nobody"  # may be the name of a class
    options = argparse.Namespace(path="~/a", runs=["~/b"])
    assert {name: command._at_home(value) for name, value in vars(options).items()} == {
        "path": f"{tmp_path}/a",
        "runs": [f"{tmp_path}/b"],
    }


def test_a_folder_has_to_be_named(refused, monkeypatch, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)  # where class folders lie
    line = refused("train", "--config", "folder_tokenizer", "--workdir", tmp_path / "run")
    assert "data.options.path is not set: give --config.data.options.path=DIR" in line
    assert "the option path is empty" in refused("data", "check", "--kind", "folder", "--path", "")


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["--crops", "0"], "--crops is 0: expected a whole number from 1"),
        (["--enlarge", "nan"], "--enlarge is nan: expected a number from 1"),
        (["--enlarge", "0.5"], "--enlarge is 0.5"),
        (["--crop-seed", "-1"], "--crop-seed is -1: expected a whole number from 0"),
        (["--batch", "0"], "--batch is 0"),
        (["--pictures-per-file", "-5"], "--pictures-per-file is -5"),
        (["--workers", "-1"], "--workers is -1"),
        (["--bad-share", "inf"], "--bad-share is inf"),
        (["--size", "99999999"], "--size is 99999999: expected a whole number from 8"),
        (["--variety", "nan"], "--variety is nan"),
    ],
)
def test_a_store_is_not_begun_with_numbers_that_cannot_be(refused, pair, tmp_path, words, needle):
    wanted = ["tokenize", "--model", pair.model, "--kind", "shapes", "--out", tmp_path / "store", "--processes", "off"]
    assert needle in refused(*wanted, *words)
