"""Importing any module of the package or the studies loads neither TensorFlow nor PyTorch and starts no device."""

from __future__ import annotations

import sys

from tests.packaging.tree import ROOT, module_names, run, study_names

# Stands in for the frameworks, installed or not: whoever imports one is named.
DECOY = """
import sys
import traceback
print("IMPORTED", __name__, "".join(traceback.format_stack()), file=sys.stderr)
raise ImportError(__name__)
"""

IMPORT_ALL = """
import importlib
import sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "jax" in sys.modules:
        # JAX refuses this once a backend runs.
        try:
            sys.modules["jax"].config.update("jax_num_cpu_devices", 1)
        except RuntimeError:
            sys.exit(f"importing {name} started a JAX backend")
"""


def import_all(names, decoys):
    for framework in ("tensorflow", "torch"):
        (decoys / f"{framework}.py").write_text(DECOY, encoding="utf-8")
    return run([sys.executable, "-c", IMPORT_ALL, *names], ROOT, pythonpath=decoys, JAX_PLATFORMS="cpu")


def test_every_module_imports_lightly(tmp_path):
    imported = import_all([*module_names(), *study_names()], tmp_path)
    assert imported.returncode == 0, imported.stderr
    assert "IMPORTED" not in imported.stderr, imported.stderr


def test_a_heavy_module_would_be_noticed(tmp_path):
    (tmp_path / "heavy.py").write_text("try:\n    import torch\nexcept ImportError:\n    pass\n", encoding="utf-8")
    assert "IMPORTED torch" in import_all(["heavy"], tmp_path).stderr


def test_a_started_backend_would_be_noticed(tmp_path):
    (tmp_path / "eager.py").write_text("import jax\nTABLE = jax.numpy.ones(3)\n", encoding="utf-8")
    assert "importing eager started a JAX backend" in import_all(["eager"], tmp_path).stderr
