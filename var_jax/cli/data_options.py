"""The options that choose a command's data set, as in a config's `data`."""

from __future__ import annotations

import argparse
from typing import Any

_NAMES = ("path", "name", "data_dir", "validation_share", "seed", "size", "count", "variety")


def add_data_options(parser: argparse.ArgumentParser, kinds: str, required: bool = True) -> None:
    """Adds --kind, mandatory if `required`, and the options of every kind."""
    parser.add_argument("--kind", required=required, help=kinds)
    options = parser.add_argument_group("options of the kind, as in a config")
    options.add_argument("--path", metavar="DIR", help="folder: the folder of class folders; tokens: the store")
    options.add_argument("--name", help="tfds: name of the data set")
    options.add_argument("--data-dir", metavar="DIR", help="tfds: folder it was prepared in")
    options.add_argument("--validation-share", type=float, help="folder, tfds: share of pictures to validate with")
    options.add_argument("--seed", type=int, help="shapes, folder")
    options.add_argument("--size", type=int, help="shapes: side of the pictures")
    options.add_argument("--count", type=int, help="shapes: number of pictures")
    options.add_argument("--variety", type=float, help="shapes: above 0, at most 1")


def data_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options present on the command line, for `make_source`."""
    return {name: getattr(args, name) for name in _NAMES if getattr(args, name) is not None}
