"""The campaign of kills: runs of every kind end as unbroken ones, and a program that would not is found out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from studies import kills
from tests.packaging.tree import ROOT, run

# Makes three files one after another, each under another name first, and leaves finished ones alone, like `tokenize`.
CAREFUL = """
import os, pathlib, sys, time
out = pathlib.Path(sys.argv[1])
out.mkdir(exist_ok=True)
for number in range(3):
    if not (out / str(number)).exists():
        half = out / f"{number}.partial"
        half.write_text(CONTENT)
        time.sleep(0.2)
        half.rename(out / str(number))
    print(number, "pictures", flush=True)
"""


def exit_code(monkeypatch, content):
    """The study's exit code for a program that writes such files."""
    command = lambda tester, kind, out: [sys.executable, "-c", CAREFUL.replace("CONTENT", content), str(out)]
    monkeypatch.setattr(kills.Tester, "command", command)
    return kills.main(["--kills", "2", "--kills-per-run", "2", "--only", "tokenize"])


def test_a_program_that_goes_on_well_is_killed_and_passes(monkeypatch, capsys):
    assert exit_code(monkeypatch, "str(number)") == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("tokenize: 2 kills, ")
    assert "'writing': " in line


def test_a_program_that_goes_on_badly_is_found_out(monkeypatch, capsys):
    """Its files depend on the process that wrote them."""
    assert exit_code(monkeypatch, "str(os.getpid())") == 1
    assert "kills, 0 of " in capsys.readouterr().out.splitlines()[-1]


def test_checkpoints_are_compared_to_the_last_number(tmp_path):
    tester = kills.Tester(tmp_path, None)
    for run_name, last in (("pictures", 3.0), ("same", 3.0), ("other", 3.5)):
        for item, value in (("weights", np.array([1.0, last])), ("rest", np.array([np.nan, 2.0]))):
            with ocp.PyTreeCheckpointer() as writer:
                writer.save(tmp_path / run_name / "checkpoints" / "40" / item, {"x": {"y": value}})
    assert tester.same("pictures", tmp_path / "same")
    assert not tester.same("pictures", tmp_path / "other")
    (tmp_path / "same" / "checkpoints" / "40").rename(tmp_path / "same" / "checkpoints" / "39")
    assert not tester.same("pictures", tmp_path / "same")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "starting and compiling"),
        (["16 pictures"], "working"),
        (["step 5/40  loss 1"], "stepping"),
        (["step 10/40  loss 1"], "evaluating"),
        (["step 10/40  loss 1", "step 10, validation: loss 1"], "stepping"),
    ],
)
def test_the_phase_follows_from_the_output(lines, expected):
    assert kills.phase("\n".join(lines)) == expected


@pytest.mark.campaign
def test_killed_runs_end_as_unbroken_ones(tmp_path: Path):
    """Killed in the middle of writing, runs of every kind."""
    figures = tmp_path / "figures.json"
    killed = run([sys.executable, "-m", "studies.kills", "--kills", "1", "--json", figures], ROOT)
    assert killed.returncode == 0, killed.stdout + killed.stderr
    found = json.loads(figures.read_text())
    assert list(found) == ["tokenizer", "pictures", "store", "tokenize"]
    for kind in found.values():
        assert kind["kills"] == 1
        assert kind["runs"] == kind["identical"] >= 1
        assert kind["killed_in"] == {"writing": 1}
