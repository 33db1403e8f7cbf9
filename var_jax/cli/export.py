"""`var-jax export`: a model directory -> the reference's checkpoint files."""

from __future__ import annotations

import argparse

from var_jax.bundle import read_model
from var_jax.formats.tensors import write_tensors
from var_jax.interop.tokenizer import export_tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="a model directory")
    parser.add_argument("--tokenizer", required=True, metavar="FILE", help="file to write: .pth or .safetensors")


def run(args: argparse.Namespace) -> None:
    model = read_model(args.model)
    tensors = export_tokenizer(model.tokenizer_config, model.tokenizer_params, model.code_counts_SxV)
    write_tensors(args.tokenizer, tensors, {})
    print(f"wrote {args.tokenizer}: {len(tensors)} tensors")
