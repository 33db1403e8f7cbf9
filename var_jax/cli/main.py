"""`var-jax`: finds the subcommand, runs it, and turns bad input into one line and exit code 2."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import select
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from var_jax import __version__
from var_jax.cpu.large_pages import begin_again_with_large_pages
from var_jax.errors import InputError, printable

# Subcommand -> (module under var_jax.cli, one line of help). Each module has `add_arguments(parser)`
# and `run(args) -> int | None`, and is imported only for its own command (or its --help). A module with
# `TAKES_OVERRIDES` gets every `--config.key=value` of the command line in `args.overrides`.
COMMANDS: dict[str, tuple[str, str]] = {
    "import": ("import_", "turn published checkpoints into a model directory"),
    "export": ("export", "write a model directory back under the reference's names"),
    "train": ("train", "train a tokenizer or a transformer"),
    "sample": ("sample", "draw pictures of given classes: a grid, a strip by scale, or a folder of many"),
    "edit": ("edit", "in-paint, out-paint, change the class of a region, vary or enlarge a picture"),
    "app": ("app", "a page to draw and edit pictures with, in a browser on this machine"),
    "reconstruct": ("reconstruct", "draw a picture's reconstruction scale by scale"),
    "reject": ("reject", "draw many pictures per class and keep those that a classifier is surest of"),
    "measure": ("measure", "judge a trained model by a classifier of its own data's pictures"),
    "validate": ("validate", "a model's losses and reconstructions over a whole set of pictures, scale by scale"),
    "evaluate": ("evaluate", "FID, sFID, Inception score, precision and recall of pictures or of a model's samples"),
    "data": ("data", "prepare a data set, or describe one"),
    "tokenize": ("tokenize", "encode a data set once, into a store of tokens to train from"),
    "rehearse": ("rehearse", "compile a TPU pod's program without the pod: does it fit, how fast can it be"),
    "scaling": ("scaling", "train models of several sizes, fit power laws, compare the cost of drawing orders"),
    "ablate": ("ablate", "the paper's table of ablations: trains its rows, judges them, prints the table"),
    "benchmark": ("benchmark", "how fast this machine samples, trains, encodes, loads pictures and compiles"),
    "parity": ("parity", "run the PyTorch reference beside this package and print the differences"),
}


_UNREAD = 128 + 13  # the exit code of a program that SIGPIPE ended


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {printable(' '.join(message.split()))} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns the process's exit code: 0 for success, 2 for bad input.

    Names that the terminal's encoding lacks are printed as escapes. If nobody reads the output any more, as after
    `| head`, the command ends without a word.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(argv)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        if not (gone := [stream for stream in (sys.stdout, sys.stderr) if _unread(stream)]):
            raise
        for stream in gone:  # what is still in its buffer would fail at the end of Python
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return _UNREAD


def _unread(stream: io.TextIOBase | None) -> bool:
    """Whether a stream leads into a pipe whose reader has gone."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):
        return False


def _run(argv: Sequence[str] | None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(prog="var-jax", description="Visual AutoRegressive modeling in JAX.")
    parser.add_argument("--version", action="version", version=f"var_jax {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    takes_overrides = False
    wanted = next((word for word in argv if not word.startswith("-")), None)
    for name, (module_name, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == wanted:
            module = importlib.import_module(f"var_jax.cli.{module_name}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
            takes_overrides = getattr(module, "TAKES_OVERRIDES", False)
    if takes_overrides:
        argv = _with_equals(argv)
    args, overrides = parser.parse_known_args(argv)
    for name, value in vars(args).items():
        setattr(args, name, _at_home(value))
    args.overrides = overrides
    if wrong := [word for word in overrides if not (takes_overrides and word.startswith("--config."))]:
        parser.error(f"'{wrong[0]}' is not understood")
    try:
        return args.run(args) or 0
    except InputError as error:
        print(f"var-jax {args.command}: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"var-jax {args.command}: interrupted", file=sys.stderr)
        return 130


def _with_equals(words: Sequence[str]) -> list[str]:
    """The words with "--config.key=value" for "--config.key value"."""
    joined: list[str] = []
    for word in words:
        before = joined[-1] if joined else ""
        if before.startswith("--config.") and "=" not in before and not word.startswith("--"):
            joined[-1] = f"{before}={word}"
        else:
            joined.append(word)
    return joined


def _at_home(value: Any) -> Any:
    """An option's value, with the home folder for the ~ that a path begins with."""
    if isinstance(value, list):
        return [_at_home(each) for each in value]
    begins = isinstance(value, str) and (value == "~" or (value.startswith("~") and "/" in value))
    return os.path.expanduser(value) if begins else value


def command() -> int:
    """The console script: runs `main` in a process with large pages."""
    begin_again_with_large_pages()
    return main()


if __name__ == "__main__":
    sys.exit(command())
