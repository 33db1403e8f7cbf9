"""Hostile files end in one line, within bounds of memory and time, and run nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.formats import hostile_files

ROOT = Path(__file__).parents[2]


@pytest.mark.campaign
def test_hostile_files_end_in_one_line_within_bounds(tmp_path):
    """In a process of limited address space and processor time, which a crash or an endless file would end."""
    files = hostile_files.files()
    for name, (_, content) in files.items():
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-m", "tests.formats.hostile_files", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.returncode == 0, f"{lines[-1]}: {ran.stderr[-2000:]}"
    results = {line["file"]: result for line, result in zip(lines[::2], lines[1::2], strict=True)}
    assert sorted(results) == sorted(files)
    wrong = []
    for name, result in results.items():
        said = result["result"]
        # Only the bounds of the nested dict itself are found by who does not know the file.
        named = said.startswith((f"{tmp_path / name}: ", "state dict: ", "read "))
        if not re.search(files[name][0], said) or not named or "\n" in said or len(said) > 1000:
            wrong.append((name, said))
    assert wrong == []
    assert max(result["megabytes"] for result in results.values()) < 1500
    assert all(result["seconds"] < hostile_files.SECONDS for result in results.values())
