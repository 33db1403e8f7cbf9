"""The time of a step of stage 2 from pictures and from stored tokens: the same model, in turn.

    python -m studies.stored_tokens --depth 8 --batch 4 --rounds 7

The tokenizer has the published shape and drawn weights, which cost as much as trained ones; pictures are drawn at 256
px. A round is one step from pictures and one from the store, so that other work of the machine meets both. Wall time is
a user's time; processor time leaves out the work of other programs.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from etils import epath

from studies.command_line import exit_with, options
from var_jax.benchmark.models import Chosen
from var_jax.data.token_store import read_index
from var_jax.model_directory import Model, save_model
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.training.config import load_config
from var_jax.training.loop import Run
from var_jax.training.tokenize import Cuts, tokenize


@dataclasses.dataclass
class Times:
    """Seconds per step."""

    wall: list[float] = dataclasses.field(default_factory=list)
    processor: list[float] = dataclasses.field(default_factory=list)


def drawn_tokenizer(path: Path, config: TokenizerConfig) -> None:
    """Writes a tokenizer with drawn weights as a model directory."""
    params = jax.tree.map(np.asarray, Chosen("drawn", config, None).tokenizer_on_device())
    counts = np.zeros((len(config.pyramid), config.codebook_size), np.float32)
    save_model(path, Model(config, params, counts, source={"tokenizer": "drawn"}))


def measure(folder: Path, tokenizer: TokenizerConfig, preset: str, batch: int, rounds: int) -> dict[str, float]:
    """Times both kinds of steps in alternation.

    Args:
      folder: an empty one, for the tokenizer, the store and the two runs.
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
    runs = {}
    for kind in ("pictures", "store"):
        config = load_config("shapes_var", [f"tokenizer={folder / 'tokenizer'}", f"model.preset={preset}"])
        with config.unlocked():
            config.model.width = config.model.num_heads = None
            config.data.options, config.data.store = pictures, str(folder / "store") if kind == "store" else None
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
    return _figures(times) | {"bytes_per_picture": _bytes_per_picture(folder / "store")}


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
        config = TokenizerConfig(**load_config("tokenizer_imagenet256").model)
        figures = measure(Path(folder), config, f"d{args.depth}", args.batch, args.rounds)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    exit_with(main)
