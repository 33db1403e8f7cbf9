"""The cost per picture in raster order and scale by scale, at equal width and depth, over the picture's side.

Counted for the published d16's shape: sequential steps, and FLOPs with and without a KV cache. Without one, every step
computes all earlier tokens again (the paper's O(n^6) assumes this for the raster model). Timed on a small model of the
same pyramids, since the question is how times grow: all tokens of a picture in one program, at batch 1 and at a large
batch, with random weights.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.cpu.backend import backend_for
from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_file, local_target, write_json
from var_jax.generation import sampler
from var_jax.generation.settings import PLAIN, Settings
from var_jax.models import costs
from var_jax.models.baselines import PREVIOUS_TOKEN, BaselineConfig, make_transformer
from var_jax.models.net import Net, Nets
from var_jax.models.quantizer import QuantizerConfig
from var_jax.models.shapes import tokenizer_shapes
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.models.transformer import TransformerConfig
from var_jax.pyramid import PUBLISHED_SIDES, Pyramid
from var_jax.scaling.plot import new_figure, save

ORDERS = ("raster", "scales")
COUNTED = ("steps", "tokens", "flops_cached", "flops_uncached", "pairs_cached", "pairs_uncached")
_TIMED = ("seconds_1", "seconds_large")  # per picture
_COUNTED_WIDTH, _COUNTED_DEPTH = 1024, 16  # the published d16
_CODES, _CODE_WIDTH = 4096, 32
_REPEATS = 3


def shape(order: str, side: int, width: int, depth: int) -> TransformerConfig:
    """A transformer for pictures of this side in this order, with the published tokenizer's codes."""
    sides = PUBLISHED_SIDES[side]
    pyramid = Pyramid(sides[-1:] if order == "raster" else sides)
    heads = max(width // 64, 1)
    sizes = (pyramid, _CODES, _CODE_WIDTH, 1000, depth, width, heads)
    return BaselineConfig(*sizes, inputs=PREVIOUS_TOKEN) if order == "raster" else TransformerConfig(*sizes)


def counted(order: str, side: int) -> dict[str, Any]:
    """Steps, tokens and FLOPs of one picture without guidance and without the decoder."""
    config = shape(order, side, _COUNTED_WIDTH, _COUNTED_DEPTH)
    return {
        "order": order,
        "side": side,
        "steps": len(config.steps),
        "tokens": config.pyramid.length,
        "flops_cached": costs.transformer_forward_flops(config),
        "flops_uncached": costs.uncached_flops(config),
        "pairs_cached": costs.attention_pairs(config),
        "pairs_uncached": costs.uncached_attention_pairs(config),
    }


def growth(rows: Sequence[dict[str, Any]], name: str) -> dict[str, float]:
    """Exponents of a figure over the latent's side n by order, from least squares in log-log over all sides."""
    found = {}
    for order in ORDERS:
        own = [row for row in rows if row["order"] == order and row.get(name)]
        if len(own) > 1:
            sides = np.log([row["side"] / 16 for row in own])
            found[order] = float(np.polyfit(sides, np.log([row[name] for row in own]), 1)[0])
    return found


def timer(order: str, side: int, width: int, depth: int, batch: int) -> Callable[[], float]:
    """A compiled program that draws `batch` pictures' tokens; calling it returns its seconds."""
    config = shape(order, side, width, depth)
    quantizer = QuantizerConfig(config.pyramid, _CODES, _CODE_WIDTH)
    tokenizer = Tokenizer(TokenizerConfig(quantizer, 32, (1, 1, 1, 1, 1), encoder_blocks=1, decoder_blocks=1))
    module = make_transformer(config, backend=backend_for())
    quantizer_shapes = {"quantizer": tokenizer_shapes(tokenizer.config)["quantizer"]}
    inputs = jnp.zeros((1, config.pyramid.length - config.start_length, _CODE_WIDTH))
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1,), jnp.int32), inputs)["params"]
    own = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(1), leaf.shape, leaf.dtype), quantizer_shapes)
    labels = jnp.arange(batch) % config.num_classes
    settings, key = Settings.create(config.pyramid, **PLAIN), jax.random.key(2)
    nets = Nets(Net(tokenizer, own), Net(module, params))
    draw = lambda nets, labels, key: sampler.sample(nets, labels, key, settings).tokens_BxL
    compiled = jax.jit(draw).lower(nets, labels, key).compile()

    def seconds() -> float:
        begun = time.perf_counter()
        jax.block_until_ready(compiled(nets, labels, key))
        return time.perf_counter() - begun

    return seconds


def measured(
    sides: Sequence[int], width: int, depth: int, batch: int, budget: float, say: Callable[[str], None]
) -> dict[tuple[str, int, int], float]:
    """Seconds by order, side and batch, each the least of three runs, small ones first.

    Cases for which the budget leaves no time are left out, and named.
    """
    found, begun = {}, time.monotonic()
    cases = [(side, order, size) for side in sorted(sides) for size in (1, batch) for order in ORDERS]
    rates: dict[tuple[str, int], tuple[int, float]] = {}
    for side, order, size in cases:
        left, expected = budget - (time.monotonic() - begun), 0.0
        if (order, size) in rates:  # from the previous side, growing with the fourth power
            before, seconds = rates[order, size]
            expected = seconds * (side / before) ** 4
        if left < 2 * expected or left <= 0:
            say(f"{order}, {side} px, batch {size}: left out, about {expected:.0f} s per picture and {left:.0f} s left")
            continue
        run = timer(order, side, width, depth, size)
        best = min(run() for _ in range(1 + _REPEATS if expected < 20 else 1))
        rates[order, size] = side, best
        found[order, side, size] = best
        say(f"{order}, {side} px, batch {size}: {best:.3f} s")
        jax.clear_caches()
    return found


def report(
    out: str | os.PathLike[str],
    sides: str,
    width: int,
    depth: int,
    batch: int,
    budget: float,
    say: Callable[[str], None] = print,
) -> None:
    """Writes cost.json, cost.md and cost.png into `out` for pictures of these sides, separated by commas.

    The timed models have this width and depth, the large batch is `batch`, timings take `budget` seconds at most.

    Raises:
      InputError: for a side that has no published pyramid.
    """
    new_figure()
    known = ", ".join(map(str, PUBLISHED_SIDES))
    parts = [part.strip() for part in sides.split(",")]
    if wrong := [part for part in parts if not (part.isdecimal() and int(part) in PUBLISHED_SIDES)]:
        raise InputError(f"--sides '{wrong[0]}': there is no published pyramid for it, expected some of {known}")
    if (width > 64 and width % 64) or batch < 2:
        raise InputError(f"--width {width} --batch {batch}: expected a multiple of 64 or less, and a batch above 1")
    whole = [int(part) for part in parts]
    rows = [counted(order, side) for side in whole for order in ORDERS]
    timed = measured(whole, width, depth, batch, budget, say)
    for row in rows:
        for name, size in zip(_TIMED, (1, batch), strict=True):
            seconds = timed.get((row["order"], row["side"], size))
            row[name] = None if seconds is None else seconds / size
    content = {
        "counted": {"width": _COUNTED_WIDTH, "depth": _COUNTED_DEPTH},
        "timed": {"width": width, "depth": depth, "large_batch": batch, "device": jax.devices()[0].device_kind},
        "rows": rows,
        "growth": {name: growth(rows, name) for name in (*COUNTED, *_TIMED)},
    }
    folder = local_target(out)
    write_json(folder / "cost.json", content, indent=1)
    text = markdown(rows, content["growth"], batch)
    with atomic_file(folder / "cost.md") as temporary:
        temporary.write_text(text)
    _draw(folder / "cost.png", rows, batch)
    say(text)


def markdown(rows: Sequence[dict[str, Any]], exponents: dict[str, dict[str, float]], batch: int) -> str:
    """The table: one line per order and side, then the exponents."""
    head = ("order", "side", "steps", "tokens", "GFLOP, cache", "GFLOP, no cache")
    head += ("attention pairs, cache", "attention pairs, no cache", "s, batch 1", f"s per picture, batch {batch}")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    number = lambda value: "" if value is None else f"{value:.3g}"
    for row in rows:
        flops = (f"{row[name] / 1e9:,.0f}" for name in ("flops_cached", "flops_uncached"))
        others = (number(row[name]) for name in ("pairs_cached", "pairs_uncached", *_TIMED))
        cells = (row["order"], row["side"], row["steps"], row["tokens"], *flops, *others)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for order in ORDERS:
        grown = [exponents[name].get(order) for name in (*COUNTED, *_TIMED)]
        lines.append(f"| {order}, exponent of n |  | " + " | ".join(number(value) for value in grown) + " |")
    return "\n".join(lines) + "\n"


def _draw(path: os.PathLike[str], rows: Sequence[dict[str, Any]], batch: int) -> None:
    figure = new_figure(figsize=(12, 3.6))
    panels = {
        "steps": "sequential steps",
        "flops_cached": "FLOPs per picture (dashed: no cache)",
        "seconds_1": "seconds, batch 1",
        "seconds_large": f"seconds per picture, batch {batch}",
    }
    sides = sorted({row["side"] for row in rows})
    for axes, (name, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for colour, order in enumerate(ORDERS):
            own = [row for row in rows if row["order"] == order and row[name]]
            axes.loglog([row["side"] for row in own], [row[name] for row in own], f"C{colour}o-", label=order)
            if name == "flops_cached":
                axes.loglog([row["side"] for row in own], [row["flops_uncached"] for row in own], f"C{colour}--")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("picture side, pixels")
        axes.set_xticks(sides, labels=map(str, sides))
        axes.minorticks_off()
        axes.grid(True, which="both", alpha=0.2)
    axes.legend()
    figure.tight_layout()
    save(figure, path)
