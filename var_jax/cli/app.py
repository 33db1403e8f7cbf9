"""`var-jax app`: a page to draw and edit pictures with, on this machine."""

from __future__ import annotations

import argparse
import asyncio

from var_jax.cli.options import add_model_option, load_to_sample
from var_jax.errors import InputError

_LARGEST_PORT = 2**16 - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_option(parser)
    where = "address to listen on (default 127.0.0.1: this machine only); anyone who reaches it may draw"
    parser.add_argument("--host", default="127.0.0.1", help=where)
    parser.add_argument("--port", type=int, default=8080, help="0 picks a free one (default 8080)")


def run(args: argparse.Namespace) -> None:
    if not 0 <= args.port <= _LARGEST_PORT:
        raise InputError(f"--port {args.port}: expected 0 to {_LARGEST_PORT}")
    try:
        from var_jax.app.server import serve
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        raise InputError("the page needs aiohttp; install it: pip install 'var_jax[app]'") from None
    bundle = load_to_sample(args.model)
    ready = lambda url: print(f"open {url} in a browser; Ctrl-C stops the server", flush=True)
    try:
        asyncio.run(serve(bundle, args.host, args.port, ready))
    except KeyboardInterrupt:
        print("stopped")
