"""The source tree as the tests of this folder see it, and how they run a process on it."""

from __future__ import annotations

import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import var_jax

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
_WRITTEN = ("docs", "launch")  # folders with pages, beside those of Python packages
SOURCES = ("var_jax", "configs", "studies", "setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md")


def copy_sources(target: Path) -> Path:
    """Copies the source tree of a distribution, and the studies beside it, to `target`, without compiled files."""
    target.mkdir()
    for source in (ROOT / name for name in SOURCES):
        if source.is_dir():
            shutil.copytree(source, target / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target)
    return target


def documents() -> list[Path]:
    """Every Markdown file of the repository."""
    folders = (folder for folder in ROOT.iterdir() if (folder / "__init__.py").exists() or folder.name in _WRITTEN)
    return sorted([*ROOT.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))])


def module_names() -> list[str]:
    """Every module of the package, `var_jax.configs` and its modules included, without importing rooms."""
    roots = {"var_jax": [str(Path(var_jax.__file__).parent)], "var_jax.configs": [str(ROOT / "configs")]}
    found = [*roots, *(name for root, folder in roots.items() for name in _walk(folder, f"{root}."))]
    return sorted(set(found))


def study_names() -> list[str]:
    """Every module of `studies`, which is not installed."""
    return ["studies", *_walk([str(ROOT / "studies")], "studies.")]


def _walk(folder: Sequence[str], prefix: str) -> list[str]:
    names = []
    for module in pkgutil.iter_modules(folder, prefix):
        names.append(module.name)
        if module.ispkg:
            names += _walk([str(Path(folder[0]) / module.name.rpartition(".")[2])], f"{module.name}.")
    return names


def run(
    command: Sequence[str | Path], cwd: Path, pythonpath: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs `command` in `cwd`, with `pythonpath` alone to import from beside what is installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | env
    if pythonpath is not None:
        environment["PYTHONPATH"] = str(pythonpath)
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
