"""`var-jax import`: published checkpoints -> a model directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from var_jax.bundle import Model, save_model
from var_jax.formats.tensors import flatten_state_dict, read_tensors
from var_jax.interop.tokenizer import import_tokenizer
from var_jax.pyramid import Pyramid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokenizer", required=True, metavar="FILE", help="vae_ch160v4096z32.pth, or .safetensors")
    parser.add_argument(
        "--pyramid", default="256", help="256, 512, 1024, or sides like 1,2,3,4: not in the file (default 256)"
    )
    parser.add_argument(
        "--lookup", default="l2", choices=("l2", "cosine"), help="how codes are found: not in the file (default l2)"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the model directory to make")


def run(args: argparse.Namespace) -> None:
    pyramid = Pyramid.parse(args.pyramid)
    tensors = flatten_state_dict(read_tensors(args.tokenizer))
    imported = import_tokenizer(tensors, pyramid, args.lookup, args.tokenizer)
    source = {"tokenizer": Path(args.tokenizer).name}
    save_model(args.out, Model(imported.config, imported.params, imported.code_counts_SxV, source))
    c = imported.config
    print(f"tokenizer: {c.codebook_size} codes of width {c.code_width}, {c.image_size} px, pyramid {pyramid}")
    print(f"wrote {args.out}")
