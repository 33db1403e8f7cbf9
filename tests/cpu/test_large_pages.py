"""Commands on CPUs begin again, once, with large pages; nobody else does."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from var_jax.cpu import large_pages
from var_jax.cpu.large_pages import OURS, TUNABLES, as_it_began, begin_again_with_large_pages

on_glibc = pytest.mark.skipif(not large_pages._has_tunable(), reason=f"no glibc 2.35 here: {platform.libc_ver()}")


@pytest.fixture
def began(monkeypatch):
    """Environments that the process was replaced with."""
    found = []
    monkeypatch.setattr(os, "execve", lambda path, arguments, environment: found.append(environment))
    monkeypatch.setattr(large_pages, "_has_tunable", lambda: True)
    monkeypatch.delenv(TUNABLES, raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    return found


def test_the_same_but_for_two_variables(began):
    before = dict(os.environ)
    begin_again_with_large_pages()
    assert as_it_began(began[0]) == before
    assert began[0].keys() - before.keys() == {TUNABLES, OURS} and "hugetlb=1" in began[0][TUNABLES]


@pytest.mark.parametrize(
    "variables", [{TUNABLES: ""}, {TUNABLES: "glibc.malloc.check=1"}, {"JAX_PLATFORMS": "tpu,cpu"}]
)
def test_who_is_left_in_peace(began, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    begin_again_with_large_pages()
    assert not began and as_it_began(dict(os.environ)) == dict(os.environ)


@pytest.mark.parametrize(("installed", "begins"), [("libtpu", False), ("jax_plugins", False), ("json", True)])
def test_by_what_is_installed(began, monkeypatch, installed, begins):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(large_pages.importlib.util, "find_spec", lambda name: name == installed or None)
    begin_again_with_large_pages()
    assert bool(began) == begins


@on_glibc
def test_a_command_begins_again_once_with_all_of_its_arguments():
    environment = {name: value for name, value in os.environ.items() if name != TUNABLES} | {"JAX_PLATFORMS": "cpu"}
    told = "import os, sys; from var_jax.cli import main; main.main = lambda: print(os.environ.get('%s'), sys.argv[1:])"
    program = f"{told % TUNABLES}; main.command()"
    arguments = [sys.executable, "-c", program, "train", "--config.a=b c"]
    ended = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.stdout == "glibc.malloc.hugetlb=1 ['train', '--config.a=b c']\n", ended.stderr
