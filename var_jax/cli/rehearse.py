"""`var-jax rehearse`: compiles a pod's program without the pod: does it fit, and how fast can it be."""

from __future__ import annotations

import argparse

from var_jax.cli.options import say
from var_jax.errors import InputError
from var_jax.formats.atomic import write_json
from var_jax.rehearsal.command import WHAT, rehearse
from var_jax.rehearsal.topologies import Topology, compiler

TAKES_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="NAME|FILE", help="a config of the package, or a .py file")
    parser.add_argument("--topology", required=True, metavar="CHIP:SHAPE", help="like v5e:4x4, v5p:4x4x4 or v6e:1x1")
    parser.add_argument("--what", choices=WHAT, default="train", help="the program (default: the training step)")
    parser.add_argument("--batch", type=int, help="batch of tokenize or sample (default: the largest that fits)")
    parser.add_argument("--search", action="store_true", help="train: try meshes, recomputation, micro-batches ...")
    parser.add_argument("--most", type=int, default=8, help="most programs that --search compiles (default 8)")
    parser.add_argument("--quick", action="store_true", help="same figures in a tenth of the time: no machine code")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file")
    parser.epilog = "Needs the TPU compiler, pip install 'var_jax[tpu]', but no TPU; see docs/tpu.md."


def run(args: argparse.Namespace) -> None:
    topology = Topology.parse(args.topology)
    if args.most < 1 or (args.batch is not None and args.batch < 1):
        raise InputError("--batch and --most: expected 1 or more")
    with compiler(say):
        found = rehearse(
            *(args.config, args.overrides, topology, args.what),
            batch=args.batch,
            most=args.most if args.search else 0,
            quick=args.quick,
            say=say,
        )
    print(found.text())
    if args.json:
        write_json(args.json, found.to_dict(), indent=1)
