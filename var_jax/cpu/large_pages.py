"""Large memory pages for large arrays on CPUs, where touching fresh small ones takes up to half of a program's time.

glibc asks the kernel for them if an environment variable said so when the process began, so the command begins again.
"""

from __future__ import annotations

import importlib.util
import os
import sys

TUNABLES = "GLIBC_TUNABLES"
OURS = "VAR_JAX_LARGE_PAGES"  # set if the command itself has set `TUNABLES`
_LARGE_PAGES = "glibc.malloc.hugetlb=1"
_FIRST_GLIBC = (2, 35)
_ACCELERATORS = ("libtpu", "jax_plugins")  # come with JAX's installations for TPUs and GPUs


def begin_again_with_large_pages() -> None:
    """Replaces this process by itself with large pages, once, on Linux where JAX will compute on the CPU.

    Whoever has set `GLIBC_TUNABLES`, to nothing at all even, is left in peace.
    """
    if TUNABLES in os.environ or not _has_tunable() or not _computes_on_cpu():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    settings = {TUNABLES: _LARGE_PAGES, OURS: "1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | settings)


def as_it_began(environment: dict[str, str]) -> dict[str, str]:
    """An environment without the additions of `begin_again_with_large_pages`."""
    added = (TUNABLES, OURS) if OURS in environment else ()
    return {name: value for name, value in environment.items() if name not in added}


def _has_tunable() -> bool:
    if sys.platform != "linux" or "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return False
    library, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    numbers = version.split(".")[:2]
    return library == "glibc" and all(map(str.isdigit, numbers)) and tuple(map(int, numbers)) >= _FIRST_GLIBC


def _computes_on_cpu() -> bool:
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    return not any(importlib.util.find_spec(name) for name in _ACCELERATORS)
