"""How much a step of stage 2 gains from stored tokens: the same model from pictures and from a store, in turn.

    python -m var_jax.benchmark.stored_tokens --depth 8 --batch 4 --rounds 7

The tokenizer has the published shape and drawn weights, which cost what trained ones do; pictures are drawn at 256 px.
A round is one step from pictures and one from the store, so that whatever else the machine does meets both. Wall time
is a user's time; processor time leaves out what other programs took.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from var_jax.data.token_store import read_index
from var_jax.model_directory import Model, save_model
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.training.config import load_config
from var_jax.training.loop import Run
from var_jax.training.tokenize import Cuts, tokenize


@dataclasses.dataclass
class Times:
    """Seconds a step."""

    wall: list[float] = dataclasses.field(default_factory=list)
    processor: list[float] = dataclasses.field(default_factory=list)


def drawn_tokenizer(path: Path, config: TokenizerConfig, seed: int = 0) -> None:
    """Writes a tokenizer with drawn weights as a model directory."""
    size = config.image_size
    params = Tokenizer(config).init(jax.random.key(seed), jnp.zeros((1, size, size, 3)))["params"]
    counts = np.zeros((len(config.pyramid), config.codebook_size), np.float32)
    save_model(path, Model(config, jax.tree.map(np.asarray, params), counts, source={"tokenizer": "drawn"}))


def measure(folder: Path, tokenizer: TokenizerConfig, preset: str, batch: int, rounds: int) -> dict[str, float]:
    """Times both kinds of steps in alternation.

    Args:
      folder: an empty one, for the tokenizer, the store and the two runs.
      tokenizer: its shape.
      preset: of the transformer, like "d8".
      batch: pictures a step.
      rounds: steps of each kind that count; one before them compiles.

    Returns:
      Medians of seconds a step by kind and clock, their ratios, and the store's bytes a picture of one crop.
    """
    drawn_tokenizer(folder / "tokenizer", tokenizer)
    options = {"size": tokenizer.image_size, "count": max(4 * batch, 10)}
    given = {"batch_size": batch, "say": lambda text: None}
    tokenize(folder / "tokenizer", "shapes", options, Cuts(enlarge=1.0), folder / "store", **given)
    runs = {}
    for kind in ("pictures", "store"):
        config = load_config("shapes_var", [f"tokenizer={folder / 'tokenizer'}", f"model.preset={preset}"])
        with config.unlocked():
            config.model.width = config.model.num_heads = None
            config.data.options, config.data.store = options, str(folder / "store") if kind == "store" else None
            config.batch_size, config.steps = batch, 1000
        runs[kind] = Run(config, epath.Path(folder / f"run_{kind}"), jax.devices()[:1])
    batches = {kind: run._batches(0) for kind, run in runs.items()}
    times = {kind: Times() for kind in runs}
    for number in range(rounds + 1):
        for kind, run in runs.items():
            _step(run, batches[kind], times[kind] if number else Times())
    for kind, run in runs.items():
        batches[kind].close()
        run.close()
    return _figures(times) | {"bytes_a_picture": _bytes(folder / "store")}


def _step(run: Run, batches: Iterator[dict[str, np.ndarray]], times: Times) -> None:
    with jax.set_mesh(run.mesh):
        wall, processor = time.perf_counter(), time.process_time()
        run.state, metrics = run._step(run.state, run.task.fixed, run._put(next(batches)), None)
        jax.block_until_ready((run.state, metrics))
        times.wall.append(time.perf_counter() - wall)
        times.processor.append(time.process_time() - processor)


def _figures(times: dict[str, Times]) -> dict[str, float]:
    medians = {
        f"{kind}_{clock}": statistics.median(getattr(of, clock))
        for kind, of in times.items()
        for clock in ("wall", "processor")
    }
    ratios = {
        f"ratio_{clock}": medians[f"pictures_{clock}"] / medians[f"store_{clock}"] for clock in ("wall", "processor")
    }
    return medians | ratios


def _bytes(store: Path) -> float:
    shards = read_index(store)["splits"]["train"]["shards"]
    return sum(shard["bytes"] for shard in shards) / sum(shard["pictures"] for shard in shards)


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=8, help="of the transformer (default 8)")
    parser.add_argument("--batch", type=int, default=4, help="pictures a step (default 4)")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each kind (default 7)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = TokenizerConfig.from_fields(**load_config("tokenizer_imagenet256").model)
        figures = measure(Path(folder), config, f"d{args.depth}", args.batch, args.rounds)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
