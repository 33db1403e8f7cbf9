"""Sweeps: the algebra, runs that are killed and started again, tables of run directories, the files of a fit."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from tests.packaging.tree import ROOT
from tests.training import tiny
from tests.training.runs import on_one_device
from var_jax.cli.main import main
from var_jax.errors import InputError
from var_jax.model_directory import Model, save_model
from var_jax.models.shapes import tokenizer_shapes
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.scaling import algebra
from var_jax.scaling.algebra import axis, chain, checked, filtered, named, product, zipped
from var_jax.scaling.curves import curves_of, read_table
from var_jax.scaling.gather import gather
from var_jax.scaling.laws import parse_irreducible
from var_jax.scaling.sweep import load_sweep
from var_jax.training.config import load_config

SWEEP = """
from tests.training import tiny
from var_jax.scaling.algebra import axis, named, zipped

def get_config(argument=""):
    c = tiny.transformer({tokenizer!r})
    c.unlock()
    c.steps, c.evaluate_every, c.checkpoint_every, c.sample_classes = 4, 2, 1, 0
    c.model.drop_path = 0.0
    return c

def get_sweep(argument=""):
    widths = axis("model.width", 8, 16, 32)
    return named(zipped(axis("model.depth", 1, 1, 2), widths), "d{{model.depth}}_w{{model.width}}")
"""


def test_algebra():
    a, b = axis("x", 1, 2), axis("y", 3, 4)
    assert product(a, b) == [{"x": 1, "y": 3}, {"x": 1, "y": 4}, {"x": 2, "y": 3}, {"x": 2, "y": 4}]
    assert zipped(a, b) == [{"x": 1, "y": 3}, {"x": 2, "y": 4}]
    assert chain(a, b) == [*a, *b]
    assert filtered(product(a, b), lambda point: point["x"] + point["y"] == 5) == [{"x": 1, "y": 4}, {"x": 2, "y": 3}]
    assert [point["name"] for point in named(zipped(a, b), "x{x}-y{y}")] == ["x1-y3", "x2-y4"]
    assert algebra.overrides({"name": "n", "model.depth": 3}) == ["--config.model.depth=3"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: zipped(axis("x", 1), axis("y", 1, 2)), "equally long"),
        (lambda: product(axis("x", 1), axis("x", 2)), "two sweeps change 'x'"),
        (lambda: named(axis("x", 1), "{y}"), "does not change"),
        (lambda: checked([]), "no points"),
        (lambda: checked([{"name": "a"}, {"name": "a"}]), "two points"),
        (lambda: checked([{"name": "../a"}]), "needs a name"),
        (lambda: load_sweep("shapes_var"), "has no get_sweep"),
        (lambda: load_sweep("scaling:rocks"), "has no variant 'rocks'"),
    ],
)
def test_sweeps_that_cannot_be(make, says):
    with pytest.raises(InputError, match=says):
        make()


def test_the_papers_depths_and_the_small_family():
    points = load_sweep("scaling")
    assert [point["model.depth"] for point in points] == [6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 27, 30]
    assert all(point["model.width"] == 64 * point["model.depth"] for point in points)
    small = load_sweep("scaling:shapes")
    sizes = [18 * point["model.depth"] * point["model.width"] ** 2 for point in small]
    assert len(sizes) >= 6
    assert max(sizes) / min(sizes) > 100
    assert load_config("scaling:digits", algebra.overrides(small[-1])).steps == 800


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A model directory with an untrained tokenizer of the tiny shape."""
    config = TokenizerConfig.from_fields(**tiny.tokenizer().model)
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape).astype(np.float32), tokenizer_shapes(config))
    folder = tmp_path_factory.mktemp("model") / "tokenizer"
    save_model(folder, Model(config, params, np.zeros((len(config.pyramid), config.codebook_size), np.float32)))
    return folder


@pytest.fixture(scope="module")
def sweep(tokenizer, tmp_path_factory):
    file = tmp_path_factory.mktemp("sweep") / "tiny_sweep.py"
    file.write_text(SWEEP.format(tokenizer=str(tokenizer)))
    return file


def command(*words):
    return [sys.executable, "-m", "var_jax.cli.main", "scaling", *map(str, words)]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def table_of(out):
    return "\n".join(",".join(map(str, row.values())) for row in gather([out])[0])


@pytest.fixture(scope="module")
def in_this_process():
    """A sweep's trainings, which are processes of their own, run in this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("var_jax.scaling.sweep.trained", lambda words: main(list(words)))
        with on_one_device():
            yield


@pytest.fixture(scope="module")
def unbroken(sweep, in_this_process, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "runs"
    assert main(["scaling", "run", str(sweep), "--out", str(out)]) == 0
    return out


@pytest.mark.campaign
def test_killed_in_the_middle_and_started_again_the_table_is_the_same(sweep, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "runs"
    done = subprocess.run(command("run", sweep, "--out", whole), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[3/3] d2_w32: finished" in done.stdout
    process = subprocess.Popen(command("run", sweep, "--out", out), env=environment(), stdout=subprocess.DEVNULL)
    second = out / "d1_w16" / "metrics.jsonl"
    while not (second.exists() and '"validation"' in second.read_text()):
        assert process.poll() is None, "the sweep ended before it could be killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(gather([out])[1]) >= 1
    again = subprocess.run(command("run", sweep, "--out", out), env=environment(), capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "d1_w8: has finished before" in again.stdout
    assert table_of(out) == table_of(whole)


@pytest.mark.campaign
def test_one_failed_model_does_not_stop_the_rest(sweep, unbroken, tmp_path, capsys):
    out = tmp_path / "runs"
    shutil.copytree(unbroken / "d2_w32", out / "d2_w32")
    shutil.copytree(unbroken / "d1_w16", out / "d1_w16")
    (out / "d1_w8").mkdir()
    (out / "d1_w8" / "stranger.txt").write_text("not a run")
    assert main(["scaling", "run", str(sweep), "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "d1_w8: failed with exit code 2" in printed
    assert "[3/3] d2_w32: has finished before" in printed
    assert "1 of 3 models failed: d1_w8" in printed


@pytest.mark.campaign
def test_the_table(unbroken):
    rows, left_out = gather([unbroken])
    assert left_out == []
    assert [(row["model"], row["step"]) for row in rows] == [
        (name, step) for name in ("d1_w8", "d1_w16", "d2_w32") for step in (2, 4)
    ]
    row = rows[-1]
    assert row["n"] == 18 * 2 * 32**2
    assert row["parameters"] > row["n"]
    assert row["tokens"] == 4 * 8 * 21
    assert row["flops"] > 6 * row["tokens"] * 12 * 2 * 32**2
    assert {"loss", "error", "loss_last", "error_last", "loss_0", "loss_2", "error_1"} <= set(row)
    assert row["loss_2"] == row["loss_last"]
    assert row["loss"] == pytest.approx((row["loss_0"] + 4 * row["loss_1"] + 16 * row["loss_2"]) / 21, rel=1e-4)


DAMAGE = {
    "training.json": lambda text: text[: len(text) // 2],
    "metrics.jsonl": lambda text: "{half a" + text[7:],
}


@pytest.mark.campaign
@pytest.mark.parametrize("file", DAMAGE)
def test_a_damaged_run_is_named_and_left_out(unbroken, tmp_path, capsys, file):
    out = tmp_path / "runs"
    shutil.copytree(unbroken, out)
    broken = out / "d1_w16" / file
    broken.write_text(DAMAGE[file](broken.read_text()))
    assert main(["scaling", "table", str(out), "--out", str(tmp_path / "table.csv")]) == 0
    printed = capsys.readouterr().out
    assert "left out: " in printed
    assert "d1_w16" in printed
    assert {curve.model for curve in read_table(tmp_path / "table.csv")} == {"d1_w8", "d2_w32"}


@pytest.mark.campaign
def test_an_unfinished_run_is_no_model(unbroken, tmp_path):
    out = tmp_path / "runs"
    shutil.copytree(unbroken, out)
    file = out / "d1_w16" / "metrics.jsonl"
    file.write_text("".join(line + "\n" for line in file.read_text().splitlines() if '"step": 4' not in line))
    rows, left_out = gather([out])
    assert len(left_out) == 1
    assert "d1_w16: has not finished (2 of 4 steps evaluated)" in left_out[0]
    assert {row["model"] for row in rows} == {"d1_w8", "d2_w32"}


def test_jobs_for_a_cluster(sweep, tmp_path):
    jobs = tmp_path / "jobs"
    words = ["scaling", "run", str(sweep), "--out", "gs://bucket/runs", "--write-jobs", str(jobs)]
    assert main([*words, "--config.seed=3"]) == 0
    assert sorted(file.name for file in jobs.iterdir()) == ["d1_w16.sh", "d1_w8.sh", "d2_w32.sh"]
    text = (jobs / "d2_w32.sh").read_text()
    assert "--workdir gs://bucket/runs/d2_w32" in text
    assert "--config.model.depth=2 --config.model.width=32 --config.seed=3" in text
    assert os.access(jobs / "d2_w32.sh", os.X_OK)


def written_table(path, models=8):
    """A CSV file of curves that obey a law, with the required columns alone."""
    random = np.random.default_rng(0)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "n", "tokens", "flops", "loss", "error"])
        for n in np.geomspace(1e6, 1e9, models):
            for tokens in np.geomspace(1e8, 1e10, 12):
                loss = (1e-9 * n) ** -0.2 + (1e-9 * tokens) ** -0.3
                loss *= 1 + 0.002 * random.standard_normal()
                writer.writerow([f"n{n:.0f}", n, tokens, 6 * n * tokens, loss, 0.9 * (n / 1e6) ** -0.01])
    return path


def test_a_fit_of_results_from_elsewhere(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "laws"
    table = written_table(tmp_path / "elsewhere.csv")
    assert main(["scaling", "fit", "--table", str(table), "--out", str(out), "--irreducible", "none"]) == 0
    assert {file.name for file in out.iterdir()} == {
        "scaling.json",
        "laws.md",
        "table.csv",
        "over_parameters.png",
        "over_compute.png",
    }
    laws = json.loads((out / "scaling.json").read_text())["figures"]
    assert laws["error"]["laws"]["n"]["exponent"] == pytest.approx(-0.01, abs=1e-6)
    low, high = laws["loss"]["laws"]["n"]["exponent_interval"]
    assert low < laws["loss"]["laws"]["n"]["exponent"] < high < 0
    assert laws["loss"]["laws"]["flops"]["points"] >= 3
    held_out = laws["loss"]["largest_model_held_out"]
    assert held_out["n"] == pytest.approx(1e9)
    assert held_out["inside"] == (held_out["interval"][0] <= held_out["reached"] <= held_out["interval"][1])
    printed = capsys.readouterr().out
    assert "Pearson" in printed
    assert "largest model by the others" in printed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model,n,tokens,flops,loss\n", "has no column 'error'"),
        ("model,n,tokens,flops,loss,error\n", "no line below"),
        ("model,n,tokens,flops,loss,error\na,1,2,3,x,5\n", "line 2: loss is 'x'"),
        ("model,n,tokens,flops,loss,error\na,1,2,3,0,5\n", "line 2: loss is 0, expected a number above 0"),
        ("model,n,tokens,flops,loss,error\na,1,2,3,4,5\na,2,3,3,4,5\n", "'a': its lines have several n"),
    ],
)
def test_tables_that_cannot_be(tmp_path, text, says):
    file = tmp_path / "table.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=says):
        read_table(file)


def test_what_is_told_to_be_irreducible():
    figures = ["loss", "loss_last", "error"]
    assert parse_irreducible("none", figures) == {"loss": 0.0, "loss_last": 0.0, "error": 0.0}
    assert parse_irreducible("fitted", figures) == {"loss": None, "loss_last": None, "error": None}
    assert parse_irreducible("loss=5,error=fitted", figures) == {"loss": 5.0, "loss_last": 0.0, "error": None}
    for wrong in ("loss", "loss=-1", "noise=3", "loss=x"):
        with pytest.raises(InputError, match="expected none, fitted, or FIGURE=VALUE"):
            parse_irreducible(wrong, figures)


def test_a_curve_of_one_point_is_enough_for_sizes():
    rows = [{"model": f"m{n}", "n": n, "tokens": 1, "flops": n, "loss": 1 / n, "error": 0.5} for n in (4, 1, 2)]
    assert [curve.model for curve in curves_of(rows)] == ["m1", "m2", "m4"]
