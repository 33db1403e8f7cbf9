"""Shared by all tests: eight virtual CPU devices, the golden numbers, memory given back, campaigns, and CI's skips."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import os
import resource
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

# Before JAX is imported, and for the processes that tests start. The second run finds everything compiled.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile far more than they compute: machine code without optimisation halves their time (the programs that
# XLA makes of ours are optimised as always), and the older way to fuse, where jaxlib has it, takes off another third.
# Code in one piece is a tenth less work, since every worker has but one core.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    * importlib.metadata.version("jaxlib").startswith("0.10."),
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

# A process that holds more lets go of all compiled programs, which the cache on the disk keeps.
ENOUGH_BYTES = 1.2 * 2**30  # after a file of tests: files share few programs
TOO_MANY_BYTES = 1.8 * 2**30  # after a test
LEFT_OUT, HELD = pytest.StashKey[int](), pytest.StashKey[list[int]]()

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


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the training directories `tokenizer` and `transformer` of `tests.training.tiny`: six steps each, on
    one device.

    Not to be changed by a test. One worker trains them for all.
    """
    import fcntl

    from tests.training import runs, tiny
    from var_jax.training.loop import train

    shared = tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else None
    folder = tmp_path_factory.mktemp("tiny_run") if shared is None else shared / "tiny_run"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            with runs.on_one_device():
                train(tiny.tokenizer(), str(folder / "tokenizer"))
                train(tiny.transformer(folder / "tokenizer"), str(folder / "transformer"))
            (folder / "done").touch()
    return folder


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Memory that a test held for programs goes before it is too much for a laptop."""
    same_file = nextitem is not None and nextitem.path == item.path
    if _held_bytes() > (TOO_MANY_BYTES if same_file else ENOUGH_BYTES):
        jax.clear_caches()
        gc.collect()
        if sys.platform == "linux":  # freed pieces between held ones go back to the system
            ctypes.CDLL(None).malloc_trim(0)


def _held_bytes() -> int:
    """Resident bytes of this process now, where the system tells; else the most that it ever held."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return _most_bytes()


def _most_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that launch/test.sh gives unless it is called with --all."""
    parser.addoption("--no-campaigns", action="store_true", help="leave out the tests that are marked `campaign`")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is marked, and counts it."""
    if config.getoption("--no-campaigns"):
        left_out = [item for item in items if item.get_closest_marker("campaign")]
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)
        config.stash[LEFT_OUT] = len(left_out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What the process that reports cannot see itself, where tests run in others."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, 0)
        session.config.workeroutput["held"] = _most_bytes()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended: every one counts the same tests as left out, and its own memory."""
    output, stash = getattr(node, "workeroutput", {}), node.config.stash
    stash[LEFT_OUT] = output.get("left_out", 0)
    stash.setdefault(HELD, []).append(output.get("held", 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The memory that workers needed, and how to run the tests that were left out."""
    held = config.stash.get(HELD, [_most_bytes()])
    terminalreporter.write_line(f"memory: {', '.join(f'{each / 2**30:.1f}' for each in held)} GiB at most per worker")
    if count := config.stash.get(LEFT_OUT, 0):
        given = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
        command = " ".join(["launch/test.sh --all", *given])
        terminalreporter.write_line(f"{count} campaigns (end-to-end tests) were left out; with them: {command}")


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
