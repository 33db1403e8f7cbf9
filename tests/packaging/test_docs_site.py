"""The documentation site builds without a warning, from the pages and from the docstrings, without importing them."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

import pytest

import var_jax
from tests.packaging.tree import ROOT, documents, module_names, run
from var_jax.pyramid import Pyramid

pytest.importorskip("mkdocs", reason="the extra 'docs' is not installed")
pytestmark = pytest.mark.campaign

# Documented by their pages and by `--help`.
COMMANDS = {"app", "benchmark", "cli", "rehearsal", "scaling"}
# An import of any of these is an error in the build.
UNIMPORTABLE = "import sys; sys.modules.update(dict.fromkeys(['jax', 'flax', 'numpy', 'var_jax'])); "


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = f"{UNIMPORTABLE}from mkdocs.__main__ import cli; cli()"
    built = run([sys.executable, "-c", build, "build", "--strict", "--site-dir", folder], ROOT, NO_MKDOCS_2_WARNING="1")
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_module_of_the_library_has_a_page(site):
    library = [name.split(".") for name in module_names() if not name.startswith("var_jax.configs")]
    missing = [
        parts for parts in library if parts[1:2] and parts[1] not in COMMANDS and not _page(site, parts).exists()
    ]
    assert missing == []
    assert not any((site / "api" / "var_jax" / name).exists() for name in COMMANDS)


@pytest.mark.parametrize("page, documented", [("pyramid", Pyramid), ("bundle", var_jax.load), ("", var_jax.load)])
def test_pages_hold_the_docstrings(site, page, documented):
    text = _text(_page(site, ["var_jax", page]))
    assert documented.__doc__.splitlines()[0] in text
    assert f"{documented.__name__}(" in text


def test_readme_is_the_start_and_its_links_lead_somewhere(site):
    start = (site / "index.html").read_text(encoding="utf-8")
    for target in re.findall(r'(?:href|src)="(?!https?:|#|data:)([^"#]+)', start):
        assert (site / target).exists(), target
    assert (site / "docs" / "pictures" / "bundled_star.png").exists()


def test_every_page_of_the_repository_is_in_the_site(site):
    pages = [page.relative_to(ROOT) for page in documents()]
    assert len(pages) > 15
    folders = [page.parent if page.name == "README.md" else page.with_suffix("") for page in pages]
    assert [str(folder) for folder in folders if not (site / folder / "index.html").exists()] == []


def _page(site: Path, parts: list[str]) -> Path:
    return site.joinpath("api", *parts, "index.html")


def _text(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")).replace("\n", " "))
