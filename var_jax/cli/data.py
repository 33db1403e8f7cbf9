"""`var-jax data`: prepares a TFDS data set, writes folders of small real pictures, or checks a data set."""

from __future__ import annotations

import argparse

from var_jax.cli.data_options import add_data_options, data_options
from var_jax.data.examples import KINDS, write_examples
from var_jax.data.report import report
from var_jax.data.tfds import prepare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_prepare(actions.add_parser("prepare", help="download a TFDS data set and write it for random access"))
    _add_example(actions.add_parser("example", help="write small real pictures as a folder to train on"))
    _add_check(actions.add_parser("check", help="describe a data set; exit code 2 if it cannot be used"))


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="name in TFDS, like imagenet2012 or cifar10")
    parser.add_argument("--data-dir", required=True, metavar="DIR", help="folder to write it to")
    parser.add_argument("--manual-dir", metavar="DIR", help="files downloaded by hand (default: DIR/downloads/manual)")
    parser.set_defaults(act=_prepare)


def _add_example(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", required=True, choices=KINDS, help="scanned digits, or windows of photographs")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder, with one sub-folder per class")
    parser.set_defaults(act=_example)


def _add_check(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser, "shapes, folder, tfds or tokens")
    parser.add_argument("--read", action="store_true", help="read every picture, to find damaged ones")
    parser.set_defaults(act=_check)


def run(args: argparse.Namespace) -> None:
    args.act(args)


def _prepare(args: argparse.Namespace) -> None:
    info = prepare(args.name, args.data_dir, args.manual_dir)
    splits = ", ".join(f"{name} {split.num_examples}" for name, split in info.splits.items())
    print(f"{info.full_name} is ready in {info.data_dir}: {splits}")


def _example(args: argparse.Namespace) -> None:
    counts = write_examples(args.kind, args.out)
    print(f"{sum(counts.values())} pictures are in {args.out}: {', '.join(f'{n} {c}' for n, c in counts.items())}")


def _check(args: argparse.Namespace) -> None:
    for line in report(args.kind, args.read, **data_options(args)):
        print(line, flush=True)
