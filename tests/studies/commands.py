"""How tests read the `var-jax` commands that a study starts as processes."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from var_jax.training.config import load_config


def parsed(command: Sequence[str], verb: str) -> tuple[argparse.Namespace, ConfigDict]:
    """The options of `python -m var_jax.cli.main VERB ...`, and its config with the overrides."""
    assert command[1:4] == ["-m", "var_jax.cli.main", verb]
    parser = argparse.ArgumentParser()
    importlib.import_module(f"var_jax.cli.{verb}").add_arguments(parser)
    args, overrides = parser.parse_known_args(command[4:])
    return args, load_config(args.config, overrides)
