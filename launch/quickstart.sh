#!/usr/bin/env bash
# Trains a model and draws pictures with it, from a bare Python 3.11 or newer:
#
#   launch/quickstart.sh [DIRECTORY [--config.key=value ...]]
#
# DIRECTORY is runs/quickstart by default; further arguments go to both trainings (--config.steps=30: a trial).
# Trains a tokenizer and a transformer on drawn shapes (nothing but packages is downloaded), draws pictures
# of every class, and judges them. Training and sampling take about six minutes on two cores. If interrupted,
# the same command resumes.
#
# Writes DIRECTORY/samples.png, DIRECTORY/*/pictures/, and quickstart.json:
#   class_accuracy   share of 500 drawn pictures that a classifier of real ones assigns to the class drawn
#   psnr             PSNR of reconstructions of held-out pictures, dB
#   seconds          seconds of training and sampling (without installing and judging)
# and the other figures of `var-jax measure`.
#
#   PYTHON   the interpreter; default: python3 if new enough, else the newest one found
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

out="${1:-runs/quickstart}"
overrides=("${@:2}")
environment launch/requirements.txt launch/requirements-test.txt launch/requirements-ci.txt
export PATH="$PWD/.venv/bin:$PATH"

mkdir -p "$out"
# Counts the seconds of the timed part, over interruptions.
timed() {
  local before status=0
  before="$(cat "$out/seconds" 2>/dev/null || echo 0)"
  SECONDS=0
  "$@" || status=$?
  echo "$((before + SECONDS))" >"$out/seconds"
  return "$status"
}

say "1 of 4: training the tokenizer (pictures to tokens and back)"
timed var-jax train --config shapes_tokenizer --workdir "$out/tokenizer" "${overrides[@]}"
say "2 of 4: training the transformer (the next scale of tokens from the coarser ones)"
timed var-jax train --config shapes_var --workdir "$out/var" --config.tokenizer="$out/tokenizer" "${overrides[@]}"
say "3 of 4: drawing pictures"
sampling=(--guidance 3 --top-k 900 --top-p 0.9)
timed var-jax sample --model "$out/var" --per-class 8 --batch 40 "${sampling[@]}" --out "$out/samples.png"
say "4 of 4: judging 500 drawn pictures"
var-jax measure --model "$out/var" "${sampling[@]}" --counted 5000 --json "$out/measured.json"

python - "$out/measured.json" "$out/seconds" <<'PYTHON'
import json
import pathlib
import sys

measured, seconds = map(pathlib.Path, sys.argv[1:])
figures = json.loads(measured.read_text()) | {"seconds": int(seconds.read_text())}
pathlib.Path("quickstart.json").write_text(json.dumps(figures, indent=2) + "\n")
print(
    f"class accuracy {figures['class_accuracy']:.1%}, PSNR {figures['psnr']:.1f} dB, "
    f"{figures['seconds']} s of training and sampling; all figures are in quickstart.json"
)
PYTHON

cat <<TEXT

Pictures:
  $out/samples.png               one row per class, drawn by the model
  $out/tokenizer/pictures/       real pictures, and their reconstructions from 1, 2, ... scales
  $out/var/pictures/             samples from the same keys, in the course of training

Next steps (after: source .venv/bin/activate):
  var-jax sample --model $out/var --classes 0,4,9 --guidance 5 --seed 1 --out more.png
  var-jax train --config shapes_var --workdir runs/longer --config.tokenizer=$out/tokenizer --config.steps=10000
  docs/training.md               your own pictures: a folder with one sub-folder per class
TEXT
