"""The time of a step of stage 2 from pictures and from stored tokens: the same model, in turn.

    python -m studies.stored_tokens --depth 8 --batch 4 --rounds 7

The tokenizer has the published shape and drawn weights, which cost as much as trained ones; pictures are drawn at 256
px. A round is one step from pictures and one from the store, so that other work of the machine meets both. Wall time is
a user's time; processor time leaves out the work of other programs.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from studies.command_line import exit_with, options
from var_jax.benchmark.models import Chosen
from var_jax.data.pipeline import train_batches
from var_jax.data.token_store import read_index
from var_jax.model_directory import Model, save_model
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.parallel.mesh import batch_sharding, make_mesh, replicated
from var_jax.training import build
from var_jax.training.config import load_config
from var_jax.training.tokenize import Cuts, tokenize


class Times(NamedTuple):
    """Seconds on either clock."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> Times:
        """Both clocks, from starts of their own."""
        return cls(time.perf_counter(), time.process_time())


class Training:
    """A training on one device without a directory: its data, its state and its step."""

    def __init__(self, config: ml_collections.ConfigDict) -> None:
        """Reads the tokenizer and draws the first state."""
        self._mesh = make_mesh(devices=jax.devices()[:1])
        source, tokenizer = build.make_sources(config)[0], build.read_tokenizer(config)
        task = build.make_task(config, self._mesh, source, tokenizer)
        self._program = build.make_program(config, self._mesh, task, config.steps)
        self._fixed = jax.device_put(build.fixed_arrays(config, tokenizer), replicated(self._mesh))
        self._state = self._program.first_state()
        crops = {"enlarge": config.data.enlarge, "flip": config.data.flip, "workers": config.data.workers}
        self._batches = train_batches(source, task.image_size, config.batch_size, config.seed, **crops)

    def step(self) -> Times:
        """Reads a batch and learns from it."""
        since = Times.now()
        examples = {name: rows for name, rows in next(self._batches).items() if name not in ("indices", "skipped")}
        batch = jax.device_put(examples, batch_sharding(self._mesh))
        self._state, metrics = self._program(self._state, self._fixed, batch)
        jax.block_until_ready((self._state, metrics))
        now = Times.now()
        return Times(now.wall - since.wall, now.processor - since.processor)

    def close(self) -> None:
        """Ends the processes that read ahead."""
        self._batches.close()


def drawn_tokenizer(path: Path, config: TokenizerConfig) -> None:
    """Writes a tokenizer with drawn weights as a model directory."""
    params = jax.tree.map(np.asarray, Chosen("drawn", config, None).tokenizer_on_device())
    counts = np.zeros((len(config.pyramid), config.codebook_size), np.float32)
    save_model(path, Model(config, params, counts, source={"tokenizer": "drawn"}))


def measure(folder: Path, tokenizer: TokenizerConfig, preset: str, batch: int, rounds: int) -> dict[str, float]:
    """Times both kinds of steps in alternation.

    Args:
      folder: an empty one, for the tokenizer and the store.
      tokenizer: its shape.
      preset: of the transformer, like "d8".
      batch: pictures per step.
      rounds: steps of each kind that count; one more, before them, compiles.

    Returns:
      Medians of seconds per step by kind and clock, their ratios, and the store's bytes per picture of one crop.
    """
    drawn_tokenizer(folder / "tokenizer", tokenizer)
    pictures = {"size": tokenizer.image_size, "count": max(4 * batch, 10)}
    quietly = {"batch_size": batch, "say": lambda text: None}
    tokenize(folder / "tokenizer", "shapes", pictures, Cuts(enlarge=1.0), folder / "store", **quietly)
    trainings = {}
    for kind in ("pictures", "store"):
        config = load_config("shapes_var", [f"tokenizer={folder / 'tokenizer'}", f"model.preset={preset}"])
        with config.unlocked():
            config.model.width = config.model.num_heads = None
            config.data.options, config.data.store = pictures, str(folder / "store") if kind == "store" else None
            config.batch_size, config.steps = batch, 1000
        trainings[kind] = Training(config)
    times = [{kind: training.step() for kind, training in trainings.items()} for _ in range(rounds + 1)]
    for training in trainings.values():
        training.close()
    return _figures(times[1:]) | {"bytes_per_picture": _bytes_per_picture(folder / "store")}


def _figures(times: Sequence[Mapping[str, Times]]) -> dict[str, float]:
    medians = {
        f"{kind}_{clock}": statistics.median(getattr(step[kind], clock) for step in times)
        for kind in ("pictures", "store")
        for clock in Times._fields
    }
    return medians | {
        f"ratio_{clock}": medians[f"pictures_{clock}"] / medians[f"store_{clock}"] for clock in Times._fields
    }


def _bytes_per_picture(store: Path) -> float:
    shards = read_index(store)["splits"]["train"]["shards"]
    return sum(shard["bytes"] for shard in shards) / sum(shard["pictures"] for shard in shards)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the study with the command line's options."""
    parser = options("stored_tokens", __doc__)
    parser.add_argument("--depth", type=int, default=8, help="of the transformer (default 8)")
    parser.add_argument("--batch", type=int, default=4, help="pictures per step (default 4)")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each kind (default 7)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        config = TokenizerConfig.from_fields(**load_config("tokenizer_imagenet256").model)
        figures = measure(Path(folder), config, f"d{args.depth}", args.batch, args.rounds)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    exit_with(main)
