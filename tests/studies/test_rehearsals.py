"""The study of rehearsals: every line is a command that there is, and its JSON becomes a row of a table."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from studies import rehearsals
from tests.studies.commands import parsed
from var_jax.rehearsal.compile import Memory
from var_jax.rehearsal.count import Counts
from var_jax.rehearsal.report import Rehearsal
from var_jax.rehearsal.roofline import Roofline
from var_jax.rehearsal.topologies import Topology

GIB = 2**30


@pytest.fixture
def rehearsed(monkeypatch):
    """Arguments of the commands; each writes the report of a rehearsal, of which plain attention's does not fit."""
    commands = []

    def rehearsal(command, **_):
        args, config = parsed(command, "rehearse")
        topology = Topology.parse(args.topology)
        settings = {"attention": config.get("attention"), "remat": config.remat, "accumulate": config.accumulate}
        fits = settings["attention"] != "plain"
        answers = (Counts(bytes=3e9), Roofline(0.1, 0.2, 0.05, 0.5)) if fits else (None, None)
        mesh = {"data": topology.chips // config.mesh.fsdp, "fsdp": config.mesh.fsdp, "tensor": 1}
        memory = Memory((1 if fits else 500) * GIB, 16 * GIB)
        numbers = {"useful_flops": 1.0, "steps": 86400}
        report = Rehearsal(args.what, args.config, topology, mesh, settings, 8, memory, *answers, **numbers)
        Path(args.json).write_text(json.dumps(report.to_dict()))
        commands.append(args)

    monkeypatch.setattr(subprocess, "run", rehearsal)
    return commands


def test_all_tables(rehearsed, tmp_path, capsys):
    rehearsals.main(["--out", str(tmp_path)])
    tables = capsys.readouterr().out
    titles = [line.removeprefix("## ") for line in tables.splitlines() if line.startswith("## ")]
    assert titles == ["Training", "Slices", "Before and after", "Search", "Sampling"]
    assert len(rehearsed) == 5 + 5 * 9 * 2 + 3 * 5 + 5 + 5 * 3
    assert sum(args.search for args in rehearsed) == 5
    assert sum(args.what == "sample" for args in rehearsed) == 15
    rows = tables.splitlines()
    assert "| d30, 64 v6e | 1 x 64 x 1 | splash, dots_with_no_batch_dims_saveable, 1 | 8 | 1.0 of 16.0 | 3 |" in tables
    assert "| d36-s, v6e:16x16 | 8 | 1.0, 3, 0.0 | 50% (memory) | 500.0 of 16.0 | does not fit |" in rows
    assert "| d16, v5e:1x1 | 8 | 1.0 of 16.0 | 3 | 0.0 | 0.100 / 0.200 / 0.050 | 50% (memory) | 40 | 0.2 |" in rows


def test_what_is_there_is_not_run_again(rehearsed, tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--only", "var:d16 --what sample"]
    rehearsals.main([*arguments, "--print-only"])
    assert (rehearsed, capsys.readouterr().out) == ([], "")
    rehearsals.main(arguments)
    assert {(args.config, args.what) for args in rehearsed} == {("var:d16", "sample")}
    printed = capsys.readouterr().out
    assert printed.count("| d16, ") == 3
    rehearsed.clear()
    rehearsals.main(arguments)
    assert (rehearsed, capsys.readouterr().out) == ([], printed)
