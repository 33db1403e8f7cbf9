"""With VAR_JAX_CI=1 a skip is a failure that says why, an expected failure none; campaigns left out are counted."""

from __future__ import annotations

import shutil
import sys

import pytest

from tests.packaging.tree import ROOT, run

SKIPPING = """
import pytest

def test_skips_itself():
    pytest.skip("reason one")

@pytest.mark.skipif(True, reason="reason two")
def test_is_marked():
    pass

@pytest.mark.xfail(strict=True)
def test_fails_as_expected():
    assert False

def test_passes():
    pass
"""
CAMPAIGNS = """
import pytest

@pytest.mark.campaign
@pytest.mark.parametrize("number", range(3))
def test_takes_long(number):
    assert False

def test_is_quick():
    pass
"""
SKIPPED_WHOLE = 'import pytest\npytest.importorskip("no_such_module")\n'


def run_suite(tmp_path, ci):
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_skipping.py").write_text(SKIPPING, encoding="utf-8")
    (tmp_path / "test_skipped_whole.py").write_text(SKIPPED_WHOLE, encoding="utf-8")
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--continue-on-collection-errors", tmp_path]
    return run(pytest, tmp_path, VAR_JAX_CI=ci)


def test_skips_fail_in_ci(tmp_path):
    suite = run_suite(tmp_path, "1")
    assert suite.returncode == 1
    assert "1 failed, 1 passed, 1 xfailed, 2 errors" in suite.stdout
    for reason in ("reason one", "reason two", "no_such_module"):
        assert reason in suite.stdout


def test_skips_pass_elsewhere(tmp_path):
    suite = run_suite(tmp_path, "")
    assert suite.returncode == 0
    assert "1 passed, 3 skipped, 1 xfailed" in suite.stdout


@pytest.mark.parametrize("workers", ["0", "1"])
def test_campaigns_are_left_out_aloud(tmp_path, workers):
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_long.py").write_text(CAMPAIGNS, encoding="utf-8")
    options = ["-p", "no:cacheprovider", "-n", workers, "--no-campaigns"]
    suite = run([sys.executable, "-m", "pytest", *options, "test_long.py"], tmp_path)
    assert suite.returncode == 0, suite.stdout + suite.stderr
    assert "1 passed" in suite.stdout
    assert "3 campaigns (end-to-end tests) were left out; with them: launch/test.sh --all test_long.py" in suite.stdout
    assert "GiB at most per worker" in suite.stdout
