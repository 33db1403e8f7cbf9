"""launch/kill_test.py in short: killed in the middle of writing, runs of every kind end as unbroken ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.packaging.tree import ROOT, run


def test_killed_runs_end_as_unbroken_ones(tmp_path: Path):
    figures = tmp_path / "figures.json"
    script = [sys.executable, ROOT / "launch" / "kill_test.py", "--kills", "1", "--json", figures]
    killed = run(script, ROOT, pythonpath=ROOT)
    assert killed.returncode == 0, killed.stdout + killed.stderr
    found = json.loads(figures.read_text())
    assert list(found) == ["tokenizer", "pictures", "store", "tokenize"]
    for kind in found.values():
        assert kind["kills"] == 1
        assert kind["runs"] == kind["identical"] >= 1
        assert kind["killed_in"] == {"writing": 1}
