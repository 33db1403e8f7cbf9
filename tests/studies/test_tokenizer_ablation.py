"""The ablation of the tokenizer: the runs it starts are ones that can be, finished ones are not done again."""

from __future__ import annotations

import json
import subprocess
import types

import numpy as np
import pytest
from PIL import Image

from studies import tokenizer_ablation
from tests.interop.checkpoints import drawn_model, tokenizer_config
from tests.studies.commands import parsed
from var_jax.bundle import load
from var_jax.model_directory import save_model
from var_jax.pyramid import Pyramid


@pytest.fixture
def trained(monkeypatch):
    """Commands in the place of trainings; each leaves the last line of a training's metrics."""
    commands = []

    def training(command, **_):
        args, config = parsed(command, "train")
        commands.append(command)
        figures = {"psnr": 20.0 + config.seed, "ssim": 0.5, "lpips": 0.25, "codes_used": [4, 8], "perplexity": [2, 6]}
        write(args.workdir, {"step": config.steps, "kind": "validation", **figures})
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", training)
    return commands


def write(directory, line):
    path = tokenizer_ablation.Path(directory) / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"step": 7, "kind": "train"}) + "\n" + json.dumps(line) + "\n")


def run(out, *more):
    return tokenizer_ablation.main(["--data", "none", "--lpips-weights", "none", "--out", str(out), *more])


def test_a_table_of_codes(trained, tmp_path):
    """Every row's training has a config that loads; started again, nothing is trained and the table is the same."""
    arguments = ["--only", "codes", "--steps", "7"]
    assert run(tmp_path, *arguments) == 0
    assert len(trained) == 2 * len(tokenizer_ablation.CODES)
    table = (tmp_path / "codes.md").read_text().splitlines()
    assert (
        table[2]
        == "| plain | 2 | 20.50 (20.00 to 21.00) | 0.500 (0.500 to 0.500) | 0.250 (0.250 to 0.250) | 4, 8 | 2, 6 |"
    )
    assert [line.split(" | ")[0] for line in table[2:]] == [f"| {name}" for name in tokenizer_ablation.CODES]
    assert len(json.loads((tmp_path / "figures.json").read_text())) == 14
    trained.clear()
    assert run(tmp_path, *arguments) == 0
    assert trained == []
    assert (tmp_path / "codes.md").read_text().splitlines() == table


def test_losses_go_on_from_plain_runs(trained, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(tokenizer_ablation, "pictures", lambda out, runs: shown.extend(runs))
    assert run(tmp_path, "--only", "losses", "--steps", "7", "--more", "3", "--seeds", "1", "--gan-seeds", "2") == 0
    fresh, onward = (
        [command for command in trained if any("init_from" in word for word in command) == goes_on]
        for goes_on in (False, True)
    )
    assert len(fresh) == 2
    assert len(onward) == 3 + 2 * 3  # of the six rows three have a discriminator
    assert all(f"--config.init_from={tmp_path / 'codes' / 'plain'}" in " ".join(command) for command in onward)
    assert [row.row for row in shown] == list(tokenizer_ablation.LOSSES)
    assert (tmp_path / "losses.md").read_text().count("\n") == 2 + len(tokenizer_ablation.LOSSES)


def test_a_failed_run_ends_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: types.SimpleNamespace(returncode=1))
    assert run(tmp_path, "--only", "codes") == 1
    assert "14 of 14 runs failed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(tmp_path, "--rows", "plain;magic")


def test_pictures_of_every_run_under_the_originals(tmp_path, monkeypatch):
    save_model(tmp_path / "model", drawn_model(tokenizer_config(pyramid=Pyramid((1, 2))), None))
    model = load(tmp_path / "model")
    monkeypatch.setattr(tokenizer_ablation.var_jax, "load", lambda directory: model)
    runs = [tokenizer_ablation.Run("losses", row, 0, [], None, 7) for row in ("plain", "edges")]
    folder = tmp_path / "validation" / "leaf"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(np.full((6, 6, 3), 80 * number, np.uint8)).save(folder / f"{number}.png")
    settings = {"config": {"data": {"options": {"path": str(tmp_path)}}}}
    runs[0].directory(tmp_path).mkdir(parents=True)
    (runs[0].directory(tmp_path) / "training.json").write_text(json.dumps(settings))
    tokenizer_ablation.pictures(tmp_path, runs)
    side = 2 * model.tokenizer.config.image_size
    assert Image.open(tmp_path / "losses.png").size == (3 * side, 3 * side)
