"""Every study explains itself, stands in the docs by its command, and ends bad input in one line."""

from __future__ import annotations

import importlib
import json
import re

import pytest

from studies.command_line import exit_with, write_json
from tests.packaging.tree import ROOT, study_names
from var_jax.errors import InputError

STUDIES = [name for name in study_names() if name not in ("studies", "studies.command_line")]


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(name).main(["--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: python -m {name} ")
    assert re.search(rf"^ *python -m {name} --", printed, re.MULTILINE)  # an example


def test_docs_and_studies_name_each_other():
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")]
    assert sorted(set(re.findall(r"python -m (studies\.\w+)", "\n".join(pages)))) == STUDIES
    table = (ROOT / "studies" / "README.md").read_text(encoding="utf-8")
    assert [f"studies.{name}" for name in re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)] == STUDIES


def test_bad_input_is_one_line_and_code_2(capsys):
    def main():
        raise InputError("no such\n model")

    with pytest.raises(SystemExit) as stopped:
        exit_with(main)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "no such model\n"
    for answer, code in ((None, 0), (1, 1)):
        with pytest.raises(SystemExit) as stopped:
            exit_with(lambda answer=answer: answer)
        assert stopped.value.code == code


def test_figures_go_where_a_file_was_named(tmp_path):
    write_json(None, {})
    write_json(tmp_path / "new" / "figures.json", {"x": [1, 2.5]})
    assert json.loads((tmp_path / "new" / "figures.json").read_text()) == {"x": [1, 2.5]}
