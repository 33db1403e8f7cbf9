"""The options of commands that several processes may run together, on one machine or on many."""

from __future__ import annotations

import argparse
import contextlib

import jax

from var_jax.errors import InputError
from var_jax.parallel.processes import EXPECTED, SECONDS_TO_MEET, together

PLATFORMS = ("tpu", "gpu", "cpu")


def add_process_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("processes and devices")
    group.add_argument("--processes", default="auto", metavar="WHICH", help=f"{EXPECTED} (default auto)")
    waited = f"seconds to wait for the others (default {SECONDS_TO_MEET})"
    group.add_argument("--meet-within", type=float, default=SECONDS_TO_MEET, metavar="SECONDS", help=waited)
    group.add_argument("--platform", choices=PLATFORMS, help="stop unless the devices are of this kind")
    group.add_argument("--compile-cache", metavar="DIR", help="folder for compiled programs, or gs://BUCKET/FOLDER")


def joined(args: argparse.Namespace, saves: bool = False) -> contextlib.AbstractContextManager[None]:
    """Runs the body together with the other processes, if there are any; `saves` as in `join`."""
    if args.meet_within <= 0:
        raise InputError(f"--meet-within {args.meet_within}: expected seconds above 0")
    if args.compile_cache:
        jax.config.update("jax_compilation_cache_dir", args.compile_cache)
    say = lambda text: print(text, flush=True)
    return together(args.processes, args.platform, saves=saves, seconds=args.meet_within, say=say)
