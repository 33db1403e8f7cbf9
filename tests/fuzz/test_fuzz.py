"""A thousand damaged files of every format that is read: one line or the right values, within bounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.formats import FORMATS

ROOT = Path(__file__).parents[2]
EACH = 50  # cases of one process


def read(folder: Path, name: str, first: int, count: int) -> list[dict]:
    """The results of `tests.fuzz.reading`, one per case."""
    command = [sys.executable, "-m", "tests.fuzz.reading", str(folder), name, str(first), str(count)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT, env=environment)
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    if ran.returncode:
        lines.append({"result": f"ended by {ran.returncode}: {ran.stderr[-1000:]}", "seconds": 0, "megabytes": 0})
    return [case | result for case, result in zip(lines[::2], lines[1::2], strict=True)]


def test_shares_make_a_thousand():
    assert sum(kind.cases for kind in FORMATS.values()) * EACH == 1000


@pytest.mark.campaign
@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_one_line_or_harmless(tmp_path, name):
    results = []
    for number in range(FORMATS[name].cases):
        results += read(tmp_path / str(number), name, number * EACH, EACH)
    assert len(results) == FORMATS[name].cases * EACH
    assert [each for each in results if each["result"] not in ("same", "other", "refused")] == []
    assert max(each["seconds"] for each in results) < 10
    assert max(each["megabytes"] for each in results) < 1000
    assert sum(each["result"] == "refused" for each in results) > len(results) // 5
