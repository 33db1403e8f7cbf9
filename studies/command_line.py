"""The command line of every study: options under the study's own text, bad input as one line, figures as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_file


def options(name: str, text: str) -> argparse.ArgumentParser:
    """A parser for `python -m studies.NAME`, whose help is the text on top of the study."""
    layout = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=f"python -m studies.{name}", description=text, formatter_class=layout)


def exit_with(main: Callable[[], int | None]) -> NoReturn:
    """Ends the process with the exit code of `main`; bad input is one line and code 2, as for `var-jax`."""
    try:
        sys.exit(main() or 0)
    except InputError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


def write_json(path: Path | None, figures: Any) -> None:
    """Writes the figures, if a file was named."""
    if path is not None:
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
