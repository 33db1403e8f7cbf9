"""launch/kill_test.py in short: killed in the middle of writing and at any moment, a run ends as the unbroken one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.packaging.tree import ROOT, run


@pytest.mark.parametrize("kind", ["tokenizer", "pictures", "store", "tokenize"])
def test_killed_runs_end_as_the_unbroken_one(tmp_path: Path, kind):
    figures = tmp_path / "figures.json"
    script = [sys.executable, ROOT / "launch" / "kill_test.py", "--only", kind, "--kills", "3", "--json", figures]
    killed = run([*script, "--kills-per-run", "3"], ROOT, pythonpath=ROOT)
    assert killed.returncode == 0, killed.stdout + killed.stderr
    found = json.loads(figures.read_text())[kind]
    assert found["kills"] == 3
    assert found["runs"] == found["identical"] >= 1
