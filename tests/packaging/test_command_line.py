"""`var-jax`: every command is listed and explains itself, and a wrong one gets one line."""

from __future__ import annotations

import pytest

from var_jax import __version__
from var_jax.cli.main import COMMANDS, main


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    listed = capsys.readouterr().out
    assert [name for name in COMMANDS if f"    {name}" not in listed] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: var-jax {command}")


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"var_jax {__version__}\n"


@pytest.mark.parametrize("arguments", [["paint"], [], ["--nonsense"]], ids=["unknown", "none", "flag"])
def test_a_wrong_command_gets_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("var-jax: ")
    assert printed.err.count("\n") == 1
