"""`var-jax import`: turns published checkpoints into a model directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from var_jax.errors import InputError
from var_jax.formats.tensors import read_state_dict
from var_jax.interop.hub import PUBLISHED, fetch_published
from var_jax.interop.names import under
from var_jax.interop.tokenizer import import_tokenizer
from var_jax.interop.transformer import import_transformer
from var_jax.model_directory import Model, save_model
from var_jax.pyramid import Pyramid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--published", choices=tuple(PUBLISHED), help="fetch this pair from the hub (extra: hub)")
    parser.add_argument("--revision", help="commit, tag or branch of the hub's repository (default main)")
    parser.add_argument("--tokenizer", metavar="FILE", help="vae_ch160v4096z32.pth, or .safetensors")
    parser.add_argument("--transformer", metavar="FILE", help="var_d16.pth or the like; leave out for a tokenizer only")
    parser.add_argument("--prefix", metavar="NAME", help="take the tensors under it, of a file with several models")
    parser.add_argument("--pyramid", help="256 (default), 512, 1024, or sides like 1,2,3,4; not in the files")
    parser.add_argument("--lookup", choices=("l2", "cosine"), help="distance for finding codes (default l2)")
    parser.add_argument("--heads", type=int, help="attention heads, for a file without qk norm")
    parser.add_argument("--out", required=True, metavar="DIR", help="the model directory to make")


def run(args: argparse.Namespace) -> None:
    if args.published:
        for name in ("tokenizer", "transformer", "prefix", "pyramid", "lookup", "heads"):
            if getattr(args, name) is not None:
                raise InputError(f"--{name} and --published: a published model brings its own; leave out one of them")
        fetched = fetch_published(args.published, args.revision or "main")
        files, pyramid, origin = fetched[:2], fetched.pyramid, f" at {fetched.revision}"
    elif args.tokenizer:
        if args.revision is not None:
            raise InputError("--revision: belongs to --published; leave it out for files of your own")
        pyramid = Pyramid.parse("256" if args.pyramid is None else args.pyramid)
        files, origin = (args.tokenizer, args.transformer), ""
    else:
        raise InputError("give --tokenizer FILE (and --transformer FILE), or --published NAME")
    states = [read_state_dict(file) for file in files if file]
    if args.prefix is not None:
        chosen = [under(state, args.prefix) for state in states]
        if not any(chosen):
            raise InputError(f"--prefix {args.prefix}: no tensor's name begins so, as in {min(states[-1], default='')}")
        states = [some or all_ for some, all_ in zip(chosen, states, strict=True)]
    tokenizer = import_tokenizer(states[0], pyramid, args.lookup or "l2", str(files[0]))
    model = {"source": {"tokenizer": Path(files[0]).name + origin}}
    if files[1]:
        transformer = import_transformer(states[1], tokenizer.config, args.heads, str(files[1]))
        model["source"]["transformer"] = Path(files[1]).name + origin
        model |= {"transformer_config": transformer.config, "transformer_params": transformer.params}
    save_model(args.out, Model(tokenizer.config, tokenizer.params, tokenizer.code_counts_SxV, **model))
    c = tokenizer.config
    print(f"tokenizer: {c.codebook_size} codes of width {c.code_width}, {c.image_size} px, pyramid {pyramid}")
    if files[1]:
        t = transformer.config
        print(f"transformer: depth {t.depth}, width {t.width}, {t.num_heads} heads, {t.num_classes} classes")
    print(f"wrote {args.out}")
