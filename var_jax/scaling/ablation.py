"""Ablations: trains the models of a table's rows, draws from them, and prints the table; an interrupted run resumes.

An ablation is a config file with `get_config` (stage 2), `TOKENIZER` and `TOKENIZERS` (stage 1's config and the changes
per tokenizer), and `get_rows`; see configs/ablation.py. Each training runs in a process of its own; every evaluation is
a file, so nothing is done twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from var_jax.bundle import Bundle, load
from var_jax.errors import InputError
from var_jax.evaluation.classifier import Classifier, spread_within_classes, train_classifier
from var_jax.evaluation.small_data import frechet_figures, real_pictures
from var_jax.formats.atomic import atomic_file, local_target
from var_jax.generation.batching import batches, class_keys
from var_jax.generation.pictures import save_picture, to_uint8
from var_jax.generation.settings import PLAIN
from var_jax.models.costs import transformer_forward_flops, transformer_parameters
from var_jax.scaling.gather import evaluation_rows, is_finished
from var_jax.scaling.sweep import trained
from var_jax.training.config import config_module, split_name
from var_jax.training_directory import newest_step, read_run

_BATCH = 50
_REAL, _HELD_OUT = 4000, 1000
_GAP = 2  # white pixels between the rows of the picture
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table: the changes of its training and its sampling settings."""

    name: str
    tokenizer: str
    changes: dict[str, Any]
    sampling: dict[str, Any]

    def training(self, seed: int) -> str:
        """The name of the model's directory; rows that train alike share it."""
        text = json.dumps([self.tokenizer, sorted(self.changes.items())])
        return f"{self.tokenizer}_{hashlib.sha256(text.encode()).hexdigest()[:8]}_s{seed}"

    def figures(self, seed: int) -> str:
        """The name of the file of figures."""
        text = json.dumps(sorted(self.sampling.items()))
        return f"{self.training(seed)}_{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"


@dataclasses.dataclass(frozen=True)
class Ablation:
    """An ablation to run: its rows, seeds and the folder of results."""

    name: str
    out: Path
    rows: list[Row]
    seeds: int
    samples: int
    changes: list[str]
    module: Any
    say: Say

    def run(self) -> list[dict[str, Any]]:
        """Trains and evaluates the unfinished rows; returns all rows' figures over the seeds, for `markdown`.

        Raises:
          InputError: if a training fails.
        """
        for tokenizer in dict.fromkeys(row.tokenizer for row in self.rows):
            self._tokenizer(tokenizer)
        for seed in range(self.seeds):
            for row in self.rows:
                self._model(row, seed)
        judge = None
        for seed in range(self.seeds):
            for row in self.rows:
                file = self.out / "figures" / row.figures(seed)
                if file.exists() and self._strip(row, seed).exists():
                    continue
                judge = judge or self._judge(row, seed)
                found = self._measured(row, seed, judge)
                with atomic_file(file) as temporary:
                    temporary.write_text(json.dumps(found, indent=1) + "\n")
                self.say(f"{row.name}, seed {seed}: {found['class_accuracy']:.1%}, Frechet {found['frechet']:.1f}")
        self._picture()
        read = lambda row, seed: json.loads((self.out / "figures" / row.figures(seed)).read_text())
        return [{"row": row.name, "seeds": [read(row, seed) for seed in range(self.seeds)]} for row in self.rows]

    def _words(self, words: Sequence[str], what: str) -> None:
        self.say(what)
        if code := trained(words):
            raise InputError(f"{what}: failed with exit code {code}; the same command goes on from here")

    def _tokenizer(self, name: str) -> None:
        """Trains a tokenizer."""
        run = self.out / "tokenizers" / name
        if _trained_to_its_end(run):
            return
        changes = [f"--config.{key}={value}" for key, value in self.module.TOKENIZERS[name].items()]
        command = ["train", "--config", self.module.TOKENIZER, "--workdir", str(run), *changes]
        self._words([*command, "--config.evaluate_every=0"], f"tokenizer {name}")

    def _directory(self, row: Row, seed: int) -> Path:
        return self.out / "models" / row.training(seed)

    def _model(self, row: Row, seed: int) -> None:
        run = self._directory(row, seed)
        if is_finished(run):
            return
        changes = [f"--config.{key}={value}" for key, value in row.changes.items()]
        command = ["train", "--config", self.name, "--workdir", str(run), f"--config.seed={seed}", *changes]
        command += [f"--config.tokenizer={self.out / 'tokenizers' / row.tokenizer}", *self.changes]
        self._words(command, f"{row.name}, seed {seed}")

    def _picture(self) -> None:
        """Writes ablation.png: pictures of the first seed's models from the same keys, per row and class."""
        strips = []
        for row in self.rows:
            with Image.open(self._strip(row, 0)) as strip:
                strips.append(np.asarray(strip.convert("RGB")))
        widest = max(strip.shape[1] for strip in strips)  # tokenizers may differ in their pictures' size
        white = [((0, _GAP), (0, widest - strip.shape[1]), (0, 0)) for strip in strips]
        rows = [np.pad(strip, width, constant_values=255) for strip, width in zip(strips, white, strict=True)]
        save_picture(self.out / "ablation.png", np.concatenate(rows)[:-_GAP])

    def _strip(self, row: Row, seed: int) -> Path:
        """The file with one picture per class drawn by a row's model."""
        return self.out / "figures" / row.figures(seed).replace(".json", ".png")

    def _judge(self, row: Row, seed: int) -> tuple[Classifier, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """A classifier of the real pictures, and the pictures; the same for all rows."""
        run = self._directory(row, seed)
        training, held_out = real_pictures(run, load(run), _REAL, _HELD_OUT)
        classes = int(training[1].max()) + 1
        self.say("training the classifier that judges")
        return train_classifier(*training, classes, seed=0, progress=lambda text: None), training[0], held_out

    def _measured(
        self, row: Row, seed: int, judge: tuple[Classifier, np.ndarray, tuple[np.ndarray, np.ndarray]]
    ) -> dict[str, Any]:
        run, (classifier, training, held_out) = self._directory(row, seed), judge
        bundle = load(run)
        config = bundle.transformer.config
        sampling = {**PLAIN, **row.sampling}
        labels = np.arange(self.samples) % config.num_classes
        drawn, seconds = _samples(bundle, labels, seed, sampling)
        save_picture(self._strip(row, seed), np.concatenate(drawn[: config.num_classes], axis=1))
        spreads = [spread_within_classes(classifier(x)[1], y) for x, y in ((drawn, labels), held_out)]
        guided = 2 if sampling["guidance"] else 1
        last = evaluation_rows(run)[-1]
        return {
            "parameters": transformer_parameters(config),
            "steps": len(config.steps),
            "sample_flops": guided * transformer_forward_flops(config),
            "seconds_a_picture": seconds,
            "loss": last["loss"],
            "comparable": [row.tokenizer, len(config.steps) > len(config.pyramid)],
            "class_accuracy": classifier.accuracy(drawn, labels),
            "classifier_accuracy": classifier.accuracy(*held_out),
            "spread": spreads[0] / spreads[1],
            **_frechet(classifier, drawn, training, held_out[0]),
            "sampling": sampling,
            "samples": self.samples,
        }


def _frechet(classifier: Classifier, drawn: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
    found = frechet_figures("own", classifier, drawn, training, held_out)
    return {"frechet": found["frechet_own"], "frechet_held_out": found["frechet_own_held_out"]}


def _samples(bundle: Bundle, labels: np.ndarray, seed: int, sampling: dict[str, Any]) -> tuple[np.ndarray, float]:
    """Pictures of the labels, and the seconds per picture of the fastest batch (decoder included)."""
    keys = class_keys(seed, labels, np.arange(len(labels)) // bundle.transformer.config.num_classes)
    drawn, fastest = [], float("inf")
    for rows, new in batches(len(labels), _BATCH):
        begun = time.perf_counter()
        images = np.asarray(bundle.generate(labels[rows], keys[rows], **sampling))
        fastest = min(fastest, (time.perf_counter() - begun) / len(images))
        drawn.append(to_uint8(images)[:new])
    return np.concatenate(drawn), fastest


def _trained_to_its_end(run: Path) -> bool:
    try:
        return newest_step(run) >= read_run(run)["total_steps"]
    except (InputError, KeyError):
        return False


def ablate(
    name: str,
    out: str | os.PathLike[str],
    seeds: int = 2,
    samples: int = 500,
    changes: Sequence[str] = (),
    say: Say = print,
) -> str:
    """Trains and judges every row, writes ablation.json, .md and .png into `out`, and returns the table.

    Args:
      name: name of a config with rows.
      out: the folder of results.
      seeds: trainings per row.
      samples: pictures drawn from each model, over all classes.
      changes: "--config.key=value" for every stage-2 training.
      say: called with lines about progress.

    Raises:
      InputError: if there is no such ablation, or a training fails.
    """
    if seeds < 1 or samples < 2 * _BATCH:
        raise InputError(f"seeds {seeds}, samples {samples}: expected 1 or more, and {2 * _BATCH} or more")
    base, argument = split_name(name)
    module = config_module(base)
    if not all(hasattr(module, wanted) for wanted in ("get_rows", "TOKENIZER", "TOKENIZERS")):
        raise InputError(f"config {base}: has no rows; an ablation has get_rows, TOKENIZER and TOKENIZERS")
    rows = [Row(**row) for row in module.get_rows(argument)]
    folder = local_target(out)
    found = Ablation(name, folder, rows, seeds, samples, list(changes), module, say).run()
    with atomic_file(folder / "ablation.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n")
    text = markdown(found)
    with atomic_file(folder / "ablation.md") as temporary:
        temporary.write_text(text)
    return text


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """The table: means over the seeds, each with the lowest and highest if there are several seeds.

    Cost is relative to the first row: the transformer's FLOPs per picture, with a cache, and measured seconds.
    """

    def cell(values: Sequence[float], form: str) -> str:
        mean, low, high = np.mean(values), min(values), max(values)
        return f"{mean:{form}} ({low:{form}} to {high:{form}})" if len(values) > 1 else f"{mean:{form}}"

    first = found[0]["seeds"]
    kinds: dict[str, str] = {}
    lines = [
        "| row | parameters | steps | FLOPs | seconds | held-out loss | class accuracy | Frechet | spread |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for number, row in enumerate(found, 1):
        each = row["seeds"]
        column = lambda key, each=each: [figures[key] for figures in each]
        mark = kinds.setdefault(json.dumps(each[0]["comparable"]), "*" * len(kinds))
        flops = each[0]["sample_flops"] / first[0]["sample_flops"]
        seconds = np.mean(column("seconds_a_picture")) / np.mean([f["seconds_a_picture"] for f in first])
        cells = [f"{number} {row['row']}", f"{each[0]['parameters']:,}", str(each[0]["steps"])]
        cells += [f"{flops:.2f}", f"{seconds:.3f}", cell(column("loss"), ".3f") + mark.replace("*", "\\*")]
        cells += [cell(column("class_accuracy"), ".1%"), cell(column("frechet"), ".0f"), cell(column("spread"), ".2f")]
        lines.append("| " + " | ".join(cells) + " |")
    real = first[0]
    lines += [
        "",
        f"Real held-out pictures: class accuracy {real['classifier_accuracy']:.1%}, "
        f"Frechet {real['frechet_held_out']:.0f}, spread 1. Losses with equal numbers of asterisks can be compared.",
    ]
    return "\n".join(lines) + "\n"
