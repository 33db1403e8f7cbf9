"""`var-jax export`: writes a model as the reference's checkpoint files, or a training as a model directory."""

from __future__ import annotations

import argparse
import os

from var_jax.errors import InputError
from var_jax.formats.tensors import write_tensors
from var_jax.interop.tokenizer import export_tokenizer
from var_jax.interop.transformer import export_transformer
from var_jax.model_directory import save_model
from var_jax.training_directory import read_any_model

SUFFIXES = (".pth", ".pt", ".safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="a model directory, or a training directory")
    parser.add_argument("--tokenizer", metavar="FILE", help="write the tokenizer to this .pth or .safetensors")
    parser.add_argument("--transformer", metavar="FILE", help="write the transformer to this .pth or .safetensors")
    parser.add_argument("--directory", metavar="DIR", help="write a model directory")
    parser.add_argument("--half", action="store_true", help="with --directory: store float16, half as large")


def run(args: argparse.Namespace) -> None:
    if not (args.tokenizer or args.transformer or args.directory):
        raise InputError("nothing to write: give --tokenizer FILE, --transformer FILE or --directory DIR")
    if args.half and not args.directory:
        raise InputError("--half: needs --directory DIR; checkpoint files always hold the model's own precision")
    files = [path for path in (args.tokenizer, args.transformer) if path]
    for path in files:  # check all of them before writing the first
        if os.path.splitext(path)[1].lower() not in SUFFIXES:
            raise InputError(f"{path}: the suffix names no format of tensors; use {', '.join(SUFFIXES)}")
    if len({os.path.realpath(path) for path in files}) < len(files):
        raise InputError(f"{args.transformer}: cannot hold both networks; give --tokenizer and --transformer two files")
    model = read_any_model(args.model)
    if args.transformer and model.transformer_config is None:
        raise InputError(f"{args.model}: has a tokenizer only, there is no transformer to write")
    if args.tokenizer:
        tensors = export_tokenizer(model.tokenizer_config, model.tokenizer_params, model.code_counts_SxV)
        write_tensors(args.tokenizer, tensors, {})
        print(f"wrote {args.tokenizer}: {len(tensors)} tensors")
    if args.transformer:
        tensors = export_transformer(model.transformer_config, model.transformer_params)
        write_tensors(args.transformer, tensors, {})
        print(f"wrote {args.transformer}: {len(tensors)} tensors")
    if args.directory:
        save_model(args.directory, model, args.half)
        print(f"wrote {args.directory}: a model directory")
