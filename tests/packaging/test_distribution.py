"""The wheel, made by way of the source distribution, holds the package and works away from the clone."""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from importlib.metadata import PathDistribution
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.packaging.tree import ROOT, copy_sources, module_names, run
from var_jax import __version__

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
SDIST = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("distribution")
    tree = copy_sources(folder / "tree")
    source = run([sys.executable, "-c", SDIST, folder], tree)
    assert source.returncode == 0, source.stderr
    (archive,) = folder.glob("*.tar.gz")
    built = run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, archive], folder)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel) -> Path:
    target = wheel.parent / "installed"
    done = run([*PIP, "install", "--no-deps", "--no-compile", "--target", target, wheel], wheel.parent)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.campaign
def test_wheel_holds_every_module_and_no_test(wheel):
    files = set(zipfile.ZipFile(wheel).namelist())
    modules = [name.replace(".", "/") for name in module_names()]
    assert [name for name in modules if not {f"{name}.py", f"{name}/__init__.py"} & files] == []
    assert {name.split("/")[0] for name in files} == {"var_jax", f"var_jax-{__version__}.dist-info"}
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in files)
    assert {"config.json", "model.safetensors", "README.md"} == {
        name.rpartition("/")[2] for name in files if name.startswith("var_jax/bundled_model/")
    }
    assert "var_jax/py.typed" in files  # type checkers read the annotations of the installed package
    assert {f"var_jax/app/page/{name}" for name in ("index.html", "page.css", "page.js", "edit.js")} <= files


@pytest.mark.campaign
def test_studies_stay_in_the_clone(wheel):
    """The tree that both were made of has them."""
    assert (wheel.parent / "tree" / "studies" / "editing.py").is_file()
    with tarfile.open(next(wheel.parent.glob("*.tar.gz"))) as source:
        names = [*source.getnames(), *zipfile.ZipFile(wheel).namelist()]
    assert any(name.endswith("var_jax/pyramid.py") for name in names)
    assert [name for name in names if "studies" in name] == []


@pytest.mark.campaign
def test_metadata(installed):
    metadata = PathDistribution(next(installed.glob("*.dist-info"))).metadata
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    extras = {"app", "cuda12", "cuda13", "docs", "examples", "figures", "gcs", "hub", "tensorboard", "test", "tpu"}
    assert set(metadata.get_all("Provides-Extra")) == extras


@pytest.mark.campaign
@pytest.mark.parametrize("command", [["bin/var-jax"], ["-m", "var_jax.cli.main"]], ids=["command", "module"])
def test_installed_command_answers(installed, tmp_path, command):
    program = [sys.executable, *command] if command[0] == "-m" else [installed / command[0]]
    answered = run([*program, "--help"], tmp_path, pythonpath=installed)
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.startswith("usage: var-jax")


@pytest.mark.campaign
def test_installed_configs_belong_to_the_package(installed, tmp_path):
    code = "import var_jax.configs; print(var_jax.configs.__file__)"
    imported = run([sys.executable, "-c", code], tmp_path, pythonpath=installed)
    assert imported.stdout.strip() == str(installed / "var_jax" / "configs" / "__init__.py"), imported.stderr


def test_clone_serves_its_own_configs():
    """The editable installation that launch/test.sh makes maps `var_jax.configs` to configs/."""
    assert find_spec("var_jax.configs").origin == str(ROOT / "configs" / "__init__.py")


def test_changelog_opens_with_this_version():
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest.group(1) == __version__


@pytest.mark.campaign
def test_pins_cover_what_the_package_needs(installed):
    files = (ROOT / "launch" / name for name in ("requirements.txt", "requirements-test.txt"))
    pins = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    requires = PathDistribution(next(installed.glob("*.dist-info"))).requires
    needs = [need for need in requires if "extra ==" not in need or 'extra == "test"' in need]
    assert len(needs) > 10
    assert {_project(need) for need in needs} - {_project(pin) for pin in pins if "==" in pin} == set()


def _project(requirement: str) -> str:
    """The name in "etils[epath]>=1.12 ; marker", in its one spelling."""
    return re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")
