"""Who may import whom: the contracts in pyproject.toml hold, and would notice if they did not."""

from __future__ import annotations

import pytest

from tests.packaging.tree import ROOT, SCRIPTS, copy_sources, run

LINT = [SCRIPTS / "lint-imports", "--no-cache"]


def test_contracts_hold():
    checked = run(LINT, ROOT)
    assert checked.returncode == 0, checked.stdout
    assert "3 kept, 0 broken" in checked.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("var_jax/pyramid.py", "import var_jax.cli.main", "var_jax.pyramid -> var_jax.cli.main"),
        ("var_jax/homeless.py", "", "var_jax.homeless"),
        ("configs/clever.py", "import var_jax.cli.main", "configs.clever -> var_jax.cli.main"),
        ("var_jax/pyramid.py", "import studies.editing", "var_jax.pyramid -> studies.editing"),
    ],
    ids=["upwards", "room-without-a-layer", "config-that-runs", "package-that-knows-a-study"],
)
def test_a_planted_violation_is_found(tmp_path, file, line, broken):
    tree = copy_sources(tmp_path / "tree")
    with (tree / file).open("a", encoding="utf-8") as planted:
        planted.write(f"\n{line}\n")
    checked = run(LINT, tree)
    assert checked.returncode == 1
    assert broken in checked.stdout
