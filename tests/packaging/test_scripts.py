"""Shell scripts pass shellcheck and can be started."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.packaging.tree import ROOT, run

LAUNCH = [file for kind in ("*.sh", "*.sbatch") for file in (ROOT / "launch").rglob(kind)]
SHELL_SCRIPTS = sorted([*LAUNCH, ROOT / ".ci" / "run"])


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck_has_nothing_to_say(script):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed (apt-get install shellcheck)")
    checked = run(["shellcheck", "--external-sources", script], ROOT)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_script_stops_at_the_first_error(script):
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert os.access(script, os.X_OK)


def test_no_python_gives_one_line():
    refused = run(["bash", ROOT / "launch" / "test.sh"], ROOT, PYTHON="/nonexistent/python")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert "Python 3.11" in refused.stderr
