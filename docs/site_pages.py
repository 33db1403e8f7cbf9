"""A hook of mkdocs.yml that gathers the pages of the site: Markdown files where they lie, and one page per module.

The site has the layout of the repository, so a relative link that works on GitHub works in the site too, and none is
rewritten. The API reference is read from the sources without importing them.
"""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

DOCUMENTS = ("*.md", "docs/*.md", "docs/pictures/*", "launch/*.md", "launch/*.ipynb", "studies/*.md")
DOCUMENTS += ("tests/golden/*.md", "var_jax/bundled_model/*.md")
# The insides of commands: documented by the pages and by `var-jax COMMAND --help`.
COMMANDS = ("app", "benchmark", "cli", "rehearsal", "scaling")
REFERENCE = "API reference"  # the entry of `nav` that the modules fill


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of the site; also fills the navigation's entry of the API reference."""
    root = Path(config.config_file_path).parent
    gathered = [file for file in files if file.src_dir != config.docs_dir]  # the theme's
    gathered += [_document(path.relative_to(root), root, config) for name in DOCUMENTS for path in root.glob(name)]
    entries: list[dict] = []
    for room in _rooms(root / "var_jax"):
        pages: list[dict] = []
        for source in sorted(room.glob("*.py")):  # __init__ comes first
            module, page = _module(source.relative_to(root))
            gathered.append(File.generated(config, page, content=f"# {module}\n\n::: {module}\n"))
            pages.append({"Overview" if source.name == "__init__.py" else source.stem: page})
        entries += [{room.name: pages}] if entries else pages
    (place,) = (entry for entry in config.nav if REFERENCE in entry)
    place[REFERENCE] = entries
    return Files(gathered)


def _document(path: Path, root: Path, config: MkDocsConfig) -> File:
    return File(path.as_posix(), str(root), config.site_dir, config.use_directory_urls)


def _rooms(package: Path) -> list[Path]:
    """The package's folder, then those of its rooms."""
    return [package, *sorted(path.parent for path in package.glob("*/__init__.py") if path.parent.name not in COMMANDS)]


def _module(source: Path) -> tuple[str, str]:
    """The dotted name of a module and its page."""
    parts = source.with_suffix("").parts
    if parts[-1] == "__init__":
        return ".".join(parts[:-1]), f"api/{'/'.join(parts[:-1])}/index.md"
    return ".".join(parts), f"api/{'/'.join(parts)}.md"
