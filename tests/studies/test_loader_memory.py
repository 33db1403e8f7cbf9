"""The study of the loader's memory, in short: it does not grow."""

from __future__ import annotations

import sys

import pytest

from tests.packaging.tree import ROOT, run


@pytest.mark.campaign
def test_the_loader_stays_flat():
    done = run([sys.executable, "-m", "studies.loader_memory", "--steps", "1000"], ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["pictures", "store"]
