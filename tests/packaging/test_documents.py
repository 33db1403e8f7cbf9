"""The pages name commands, options and files that exist."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex

import pytest

from tests.packaging.tree import ROOT, documents
from var_jax.cli.main import COMMANDS, main

CODE = re.compile(r"^```(?:bash|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED_FILE = re.compile(r"`((?:configs|docs|launch|studies|tests|var_jax)/[\w./-]*)`")


def shell_lines() -> list[tuple[str, list[str]]]:
    """(page, words) of every line in the pages' shell blocks, continued lines joined, comments left out."""
    found = []
    for page in documents():
        for block in CODE.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True) if line.count('"') % 2 == line.count("'") % 2 == 0 else []
                if words:
                    found.append((str(page.relative_to(ROOT)), words))
    return found


OURS = [(page, words[1:]) for page, words in shell_lines() if words[0] == "var-jax"]


@pytest.mark.parametrize("page", sorted({page for page, _ in OURS}))
def test_commands_and_their_options_exist(page, monkeypatch):
    for module, _ in COMMANDS.values():
        monkeypatch.setattr(importlib.import_module(f"var_jax.cli.{module}"), "run", lambda args: 0)
    for words in (words for name, words in OURS if name == page):
        whole = [part for word in words for part in (["--workdir", "anywhere"] if word == "..." else [word])]
        assert main(whole) == 0, words


def test_pages_use_every_command():
    assert {words[0] for _, words in OURS} == set(COMMANDS)


def test_scripts_and_modules_exist():
    programs = [(page, words) for page, words in shell_lines() if words[0] in ("python", "bash")]
    assert len(programs) > 5
    for page, (_, *words) in programs:
        if words[0] == "-m":
            assert importlib.util.find_spec(words[1]), f"{page}: {words[1]}"
        else:
            assert (ROOT / words[0]).is_file(), f"{page}: {words[0]}"


def test_named_files_exist():
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in documents()
        for name in NAMED_FILE.findall(page.read_text(encoding="utf-8"))
        if not (ROOT / name).exists()
    ]
    assert missing == []
