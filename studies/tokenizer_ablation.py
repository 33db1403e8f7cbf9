"""Trains a small tokenizer with and without each loss and codebook switch, and puts the figures side by side.

    var-jax data example --kind photographs --out photographs
    python -m studies.tokenizer_ablation --data photographs --lpips-weights vgg16.ckpt --out runs/ablation

Two questions, two tables. `losses`: a plain run goes on for `--more` steps with each of the losses (and with none, to
compare like with like). `codes`: fresh runs of `--steps` steps with each of the codebook's switches. Every row has
`--seeds` seeds, a row with a discriminator `--gan-seeds`. Figures are the last validation's, of the moving average.
Finished runs are not done again, so the same command goes on after a break.

Writes OUT/losses.md, OUT/codes.md (tables), OUT/figures.json and OUT/losses.png (held-out pictures, one row per run).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

import var_jax
from studies.command_line import exit_with, options, write_json
from var_jax.generation.pictures import to_uint8

CODES = {
    "plain": [],
    "cosine lookup": ["--config.model.lookup=cosine"],
    "unit-length codes": ["--config.model.lookup=cosine", "--config.model.unit_codes=True"],
    "a tenth with fewer scales": ["--config.codebook.dropout=0.1"],
    "dead codes moved": ["--config.codebook.reset_every=50"],
    "codes as moving means": ["--config.codebook.means=True"],
    "warm start": ["--config.codebook.warm_start=16"],
}
_GAN = ["--config.adversary.kind=patch", "--config.adversary.channels=16", "--config.adversary.norm_groups=4"]
_GAN += ["--config.adversary.start=0.1", "--config.adversary.ramp=0.3", "--config.adversary.rate=4"]
_HEADS = ["--config.adversary.kind=vgg", "--config.adversary.levels=2", "--config.adversary.norm_groups=16"]
_HEADS += ["--config.adversary.start=0.0", "--config.adversary.ramp=0.3", "--config.adversary.augment=False"]
_HEADS += ["--config.adversary.weight=0.1"]
LOSSES = {
    "plain": [],
    "edges": ["--config.loss.structure=1.0"],
    "discriminator": _GAN,
    "discriminator on VGG16": _HEADS,
    "LPIPS": ["--config.loss.lpips=1.0"],
    "LPIPS, discriminator": ["--config.loss.lpips=1.0", *_GAN],
}


class Run(NamedTuple):
    """One training: its row in a table, and the run that it starts from (None: from drawn weights)."""

    table: str
    row: str
    seed: int
    overrides: list[str]
    base: Path | None
    steps: int

    def directory(self, out: Path) -> Path:
        """Its work directory."""
        return out / self.table / self.row.replace(", ", "_").replace(" ", "_") / str(self.seed)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains the missing runs, then writes tables and pictures."""
    parser = options("tokenizer_ablation", __doc__)
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="folder with train/ and validation/, one sub-folder per class"
    )
    parser.add_argument("--lpips-weights", required=True, metavar="FILE", help="see docs/training.md")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the runs and tables")
    parser.add_argument("--config", default="folder_tokenizer:64", help="of the runs (default folder_tokenizer:64)")
    parser.add_argument("--steps", type=int, default=1000, help="of a fresh run (default 1000)")
    parser.add_argument("--more", type=int, default=300, help="of a run that goes on (default 300)")
    parser.add_argument("--seeds", type=int, default=2, help="of every row (default 2)")
    parser.add_argument("--gan-seeds", type=int, default=5, help="of a row with a discriminator (default 5)")
    parser.add_argument("--bases", type=int, help="fresh plain runs to go on from in `losses`; default: one per seed")
    parser.add_argument("--rows", default=";".join(LOSSES), help="of `losses`, with semicolons in between")
    parser.add_argument("--at-once", type=int, default=1, help="runs side by side")
    parser.add_argument("--only", choices=("losses", "codes"), help="one of the tables; default both")
    args = parser.parse_args(argv)
    if unknown := [row for row in args.rows.split(";") if row not in LOSSES]:
        parser.error(f"--rows: no row '{unknown[0]}', expected some of {'; '.join(LOSSES)}")
    args.out.mkdir(parents=True, exist_ok=True)
    fresh, onward = planned(args)
    for runs in (fresh, onward):
        with ThreadPoolExecutor(args.at_once) as pool:
            failed = sum(pool.map(lambda run: train(args, run) != 0, runs))
        if failed:
            print(f"{failed} of {len(runs)} runs failed, see their log.txt; start the same command again")
            return 1
    report(args.out, [run for run in fresh + onward if run.table == args.only or not args.only], args.seeds)
    return 0


def planned(args: argparse.Namespace) -> tuple[list[Run], list[Run]]:
    """Fresh runs, and those that go on from plain ones."""
    seeds = range(args.seeds if args.only != "losses" else 0)
    fresh = [Run("codes", row, seed, CODES[row], None, args.steps) for seed in seeds for row in CODES]
    plain = {run.seed: run for run in fresh if run.row == "plain"}
    onward = []
    if args.only != "codes":
        chosen = {row: LOSSES[row] for row in args.rows.split(";")}
        for seed in range(max(args.seeds, args.gan_seeds)):
            start = seed % args.bases if args.bases else seed
            if start not in plain:
                plain[start] = Run("codes", "plain", start, [], None, args.steps)
                fresh.append(plain[start])
            base = plain[start].directory(args.out)
            rows = [row for row in chosen if seed < (args.gan_seeds if "discriminator" in row else args.seeds)]
            onward += [Run("losses", row, seed, chosen[row], base, args.more) for row in rows]
    return fresh, onward


def train(args: argparse.Namespace, run: Run) -> int:
    """The run's exit code; one that has finished is left alone."""
    directory = run.directory(args.out)
    if last_figures(directory, run.steps):
        return 0
    command = [sys.executable, "-m", "var_jax.cli.main", "train", "--config", args.config, "--workdir", str(directory)]
    command += [f"--config.data.options.path={args.data}", f"--config.lpips_weights={args.lpips_weights}"]
    command += [f"--config.seed={run.seed}", f"--config.steps={run.steps}", *run.overrides]
    command += ["--config.evaluate_every=0", "--config.report_every=50", "--config.checkpoint_every=500"]
    if run.base is not None:  # the last rate of the fresh run, doubled and flat: only the loss differs
        command += [f"--config.init_from={run.base}", "--config.optimizer.schedule=constant"]
        command += ["--config.optimizer.learning_rate_per_256=0.0064"]
    print(f"{run.table}: {run.row}, seed {run.seed}", flush=True)
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode


def last_figures(directory: Path, step: int) -> dict | None:
    """The validation after the last step."""
    path = directory / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return next((line for line in reversed(lines) if line["kind"] == "validation" and line["step"] == step), None)


def report(out: Path, runs: list[Run], seeds: int) -> None:
    """Tables, figures and pictures."""
    figures = [
        run._asdict() | {"base": str(run.base), "figures": last_figures(run.directory(out), run.steps)} for run in runs
    ]
    write_json(out / "figures.json", figures)
    for table, rows in (("codes", CODES), ("losses", LOSSES)):
        found = {row: [f["figures"] for f in figures if f["table"] == table and f["row"] == row] for row in rows}
        if found := {row: each for row, each in found.items() if each}:
            text = markdown({row: each[:seeds] if table == "codes" else each for row, each in found.items()})
            (out / f"{table}.md").write_text(text)
            print(f"\n{table}\n{text}")
    losses = [run for run in runs if run.table == "losses" and run.seed == 0]
    if losses:
        pictures(out, losses)


def markdown(rows: dict[str, list[dict]]) -> str:
    """A table in Markdown: means over the seeds, and the range where there is more than one."""

    def cell(values: list[float], digits: int) -> str:
        mean, low, high = np.mean(values), min(values), max(values)
        return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})" if len(values) > 1 else f"{mean:.{digits}f}"

    lines = [
        "| | seeds | PSNR, dB | SSIM | LPIPS | codes in use by scale | perplexity by scale |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in rows.items():
        by_scale = [
            ", ".join(f"{value:.0f}" for value in np.mean([f[key] for f in each], axis=0))
            for key in ("codes_used", "perplexity")
        ]
        cells = [cell([f[key] for f in each], digits) for key, digits in (("psnr", 2), ("ssim", 3), ("lpips", 3))]
        lines.append(" | ".join([f"| {name}", str(len(each)), *cells, *by_scale]) + " |")
    return "\n".join(lines) + "\n"


def pictures(out: Path, runs: list[Run], number: int = 8) -> None:
    """Held-out pictures, one column each: the original, then the reconstruction by each run."""
    settings = json.loads((runs[0].directory(out) / "training.json").read_text())["config"]["data"]["options"]
    files = sorted(Path(settings["path"], "validation").rglob("*.png"))
    files = files[:: max(len(files) // number, 1)][:number]
    models = [var_jax.load(run.directory(out)) for run in runs]
    side = models[0].tokenizer.config.image_size
    original = np.stack([np.asarray(Image.open(file).convert("RGB").resize((side, side))) for file in files])
    rows = [original, *(to_uint8(model.decode(model.encode(original))) for model in models)]
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    Image.fromarray(sheet).resize((sheet.shape[1] * 2, sheet.shape[0] * 2), Image.Resampling.NEAREST).save(
        out / "losses.png"
    )


if __name__ == "__main__":
    exit_with(main)
