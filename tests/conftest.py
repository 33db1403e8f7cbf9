"""What every test shares: eight virtual CPU devices, the golden numbers, and skips that count as failures in CI."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Generator
from pathlib import Path

# Before JAX is imported, and for the processes that tests start. The second run finds everything compiled.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile far more than they compute: machine code without optimisation halves their time (the programs that
# XLA makes of ours are optimised as always), and the older way to fuse, where jaxlib has it, takes off another third.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false" * importlib.metadata.version("jaxlib").startswith("0.10."),
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Read when gcsfs is imported, by whichever test is the first: else it asks Google what kind of bucket the fake one is.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

import jax
import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"
SKIPS_FAIL = os.environ.get("VAR_JAX_CI") == "1"

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """`golden(name)`: the arrays of tests/golden/<name>.npz, the float16 ones as float32 (which is exact).

    They come from the reference implementation and keep PyTorch's names and layouts.
    """

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        return {key: a.astype(np.float32) if a.dtype == np.float16 else a for key, a in arrays.items()}

    return load


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """With VAR_JAX_CI=1 a test that did not run has not passed; an expected failure (xfail) has run."""
    if SKIPS_FAIL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"skipped where VAR_JAX_CI=1 allows no skips: {reason}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails tests that skip themselves or carry a skip mark."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fails files that skip themselves as a whole (`importorskip` at the top)."""
    report = yield
    _fail_if_skipped(report)
    return report
