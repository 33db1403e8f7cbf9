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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from var_jax.bundle import load
from var_jax.errors import InputError
from var_jax.evaluation.classifier import Classifier, train_classifier
from var_jax.evaluation.small_data import Labelled, class_figures, draw_samples, frechet_figures, real_pictures
from var_jax.formats.atomic import atomic_file, local_target, write_json
from var_jax.generation.pictures import save_picture
from var_jax.generation.settings import PLAIN
from var_jax.models.costs import transformer_forward_flops, transformer_parameters
from var_jax.scaling.algebra import overrides
from var_jax.scaling.gather import evaluation_rows, is_finished
from var_jax.scaling.sweep import train_command, trained
from var_jax.training.config import config_module, load_config, split_name
from var_jax.training_directory import newest_step, read_run

_FEWEST = 100  # samples
_REAL, _HELD_OUT = 4000, 1000
_GAP = 2  # white pixels between the rows of the picture
Say = Callable[[str], None]
Judge = tuple[Classifier, np.ndarray, Labelled]  # with real pictures: images of training, held-out ones with labels


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
            self._train_tokenizer(tokenizer)
        trainings = [(row, seed) for seed in range(self.seeds) for row in self.rows]
        for row, seed in trainings:
            self._train_model(row, seed)
        judge = None
        for row, seed in trainings:
            file = self.out / "figures" / row.figures(seed)
            if file.exists() and self._strip(row, seed).exists():
                continue
            judge = judge or self._judge(row, seed)
            found = self._measured(row, seed, judge)
            write_json(file, found, indent=1)
            self.say(f"{row.name}, seed {seed}: {found['class_accuracy']:.1%}, Frechet {found['frechet']:.1f}")
        self._picture()
        read = lambda row, seed: json.loads((self.out / "figures" / row.figures(seed)).read_text())
        return [{"row": row.name, "seeds": [read(row, seed) for seed in range(self.seeds)]} for row in self.rows]

    def _train(self, what: str, command: Sequence[str]) -> None:
        self.say(what)
        if code := trained(command):
            raise InputError(f"{what}: failed with exit code {code}; the same command goes on from here")

    def _train_tokenizer(self, name: str) -> None:
        run, changes = self.out / "tokenizers" / name, self.module.TOKENIZERS[name]
        if not _trained_to_its_end(run):
            command = train_command(self.module.TOKENIZER, run, changes, ["--config.evaluate_every=0"])
            self._train(f"tokenizer {name}", command)

    def _train_model(self, row: Row, seed: int) -> None:
        run, tokenizer = self._directory(row, seed), self.out / "tokenizers" / row.tokenizer
        if not is_finished(run):
            changes = {"seed": seed, **row.changes, "tokenizer": tokenizer}
            self._train(f"{row.name}, seed {seed}", train_command(self.name, run, changes, self.changes))

    def _directory(self, row: Row, seed: int) -> Path:
        return self.out / "models" / row.training(seed)

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

    def _judge(self, row: Row, seed: int) -> Judge:
        """A classifier of the real pictures, and the pictures; the same for all rows."""
        run = self._directory(row, seed)
        training, held_out = real_pictures(run, load(run), _REAL, _HELD_OUT)
        classes = int(training[1].max()) + 1
        self.say("training the classifier that judges")
        return train_classifier(*training, classes), training[0], held_out

    def _measured(self, row: Row, seed: int, judge: Judge) -> dict[str, Any]:
        run, (classifier, training, held_out) = self._directory(row, seed), judge
        bundle = load(run)
        config = bundle.transformer.config
        sampling = {**PLAIN, **row.sampling}
        labels = np.arange(self.samples) % config.num_classes
        drawn, seconds = draw_samples(bundle, labels, seed, lambda text: None, **sampling)
        save_picture(self._strip(row, seed), np.concatenate(drawn[: config.num_classes], axis=1))
        guided = 2 if sampling["guidance"] else 1
        distances = frechet_figures("own", classifier, drawn, training, held_out[0])
        return {
            "parameters": transformer_parameters(config),
            "steps": len(config.steps),
            "sample_flops": guided * transformer_forward_flops(config),
            "seconds_a_picture": seconds,
            "loss": evaluation_rows(run)[-1]["loss"],
            "comparable": [row.tokenizer, len(config.steps) > len(config.pyramid)],
            **class_figures(classifier, (drawn, labels), held_out),
            "frechet": distances["frechet_own"],
            "frechet_held_out": distances["frechet_own_held_out"],
            "sampling": sampling,
            "samples": self.samples,
        }


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
    """Trains and judges every row of a config, writes ablation.json, .md and .png into `out`, and returns the table.

    Each row has `seeds` trainings; `samples` pictures are drawn from each model, over all classes; `changes` are
    "--config.key=value" for every stage-2 training.

    Raises:
      InputError: if there is no such ablation, or a training fails.
    """
    if seeds < 1 or samples < _FEWEST:
        raise InputError(f"seeds {seeds}, samples {samples}: expected 1 or more, and {_FEWEST} or more")
    base, argument = split_name(name)
    module = config_module(base)
    if not all(hasattr(module, wanted) for wanted in ("get_rows", "TOKENIZER", "TOKENIZERS")):
        raise InputError(f"config {base}: has no rows; an ablation has get_rows, TOKENIZER and TOKENIZERS")
    rows = [Row(**row) for row in module.get_rows(argument)]
    for row in rows:  # before hours of training
        load_config(module.TOKENIZER, overrides(module.TOKENIZERS[row.tokenizer]))
        if not load_config(name, [*overrides(row.changes), *changes]).evaluate_pictures:
            raise InputError("evaluate_pictures is 0: a table has held-out losses, which only an evaluation knows")
    folder = local_target(out)
    found = Ablation(name, folder, rows, seeds, samples, list(changes), module, say).run()
    write_json(folder / "ablation.json", found, indent=1)
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
    lines = ["| row | parameters | steps | FLOPs | seconds | held-out loss | class accuracy | Frechet | spread |"]
    lines += ["|---" * 9 + "|"]
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
