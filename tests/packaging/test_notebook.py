"""launch/colab_sampling.ipynb runs from top to bottom, is kept without outputs, and leaves the runtime's JAX alone."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version

import pytest

from tests.packaging.tree import ROOT

nbformat = pytest.importorskip("nbformat")
NOTEBOOK = nbformat.read(ROOT / "launch" / "colab_sampling.ipynb", as_version=4)
CODE = {cell.id: cell for cell in NOTEBOOK.cells if cell.cell_type == "code"}


def test_no_outputs_are_kept():
    nbformat.validate(NOTEBOOK)
    assert [cell.id for cell in CODE.values() if cell.outputs or cell.execution_count] == []


@pytest.mark.campaign
def test_it_runs_from_top_to_bottom(tmp_path):
    from nbclient import NotebookClient

    client = NotebookClient(
        NOTEBOOK.copy(), timeout=1800, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    ran = {cell.id: cell.outputs for cell in client.execute().cells if cell.cell_type == "code"}
    shown = {name for name, outputs in ran.items() if any("image/png" in out.get("data", {}) for out in outputs)}
    assert shown == {"grid", "sweep", "strip", "inpaint", "class"}
    assert "star" in "".join(out.get("text", "") for out in ran["load"])
    assert ran["install"] == ran["published"] == []
    assert list(tmp_path.iterdir()) == []


def test_installing_keeps_the_runtimes_jax(tmp_path, monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    shell, asked = InteractiveShell(), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    shell.register_magic_function(asked.append, magic_name="pip")
    shell.run_cell(CODE["install"].source).raise_error()
    assert asked == ['install --quiet --constraint this_jax.txt "/content/var_jax[hub]"']
    pins = (tmp_path / "this_jax.txt").read_text(encoding="utf-8").split()
    assert pins == [f"jax=={version('jax')}", f"jaxlib=={version('jaxlib')}"]
