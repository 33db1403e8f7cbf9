"""launch/loader_memory.py in short: the loader's memory does not grow."""

from __future__ import annotations

import sys

from tests.packaging.tree import ROOT, run


def test_the_loader_stays_flat(tmp_path):
    script = [sys.executable, ROOT / "launch" / "loader_memory.py", "--steps", "1000"]
    done = run(script, tmp_path, pythonpath=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["pictures", "store"]
