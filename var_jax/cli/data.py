"""`var-jax data`: prepares a TFDS data set, writes folders of small real pictures, or checks a data set."""

from __future__ import annotations

import argparse

from var_jax.cli.options import add_data_options, data_options
from var_jax.data.examples import KINDS, write_examples
from var_jax.data.report import report
from var_jax.data.tfds import prepare
from var_jax.training import fields


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    fetch = actions.add_parser("prepare", help="download a TFDS data set and write it for random access")
    fetch.add_argument("--name", required=True, help="name in TFDS, like imagenet2012 or cifar10")
    fetch.add_argument("--data-dir", required=True, metavar="DIR", help="folder to write it to")
    fetch.add_argument("--manual-dir", metavar="DIR", help="files downloaded by hand (default: DIR/downloads/manual)")
    example = actions.add_parser("example", help="write small real pictures as a folder to train on")
    example.add_argument("--kind", required=True, choices=KINDS, help="scanned digits, or windows of photographs")
    example.add_argument("--out", required=True, metavar="DIR", help="a new folder, with one sub-folder per class")
    check = actions.add_parser("check", help="describe a data set; exit code 2 if it cannot be used")
    add_data_options(check, "shapes, folder, tfds or tokens")
    check.add_argument("--read", action="store_true", help="read every picture, to find damaged ones")


def run(args: argparse.Namespace) -> None:
    {"prepare": _prepare, "example": _example, "check": _check}[args.action](args)


def _prepare(args: argparse.Namespace) -> None:
    info = prepare(args.name, args.data_dir, args.manual_dir)
    splits = ", ".join(f"{name} {split.num_examples}" for name, split in info.splits.items())
    print(f"{info.full_name} is ready in {info.data_dir}: {splits}")


def _example(args: argparse.Namespace) -> None:
    counts = write_examples(args.kind, args.out)
    print(f"{sum(counts.values())} pictures are in {args.out}: {', '.join(f'{n} {c}' for n, c in counts.items())}")


def _check(args: argparse.Namespace) -> None:
    options = data_options(args)
    fields.check_values(fields.OPTIONS.get(args.kind, {}), options)
    for line in report(args.kind, args.read, **options):
        print(line, flush=True)
