"""launch/tokenizer_ablation.py on runs that are there already: nothing is trained again, the table has their means."""

from __future__ import annotations

import json
import sys

from tests.packaging.tree import ROOT, run


def test_a_table_of_finished_runs(tmp_path):
    rows = {
        "plain": "plain",
        "cosine lookup": "cosine_lookup",
        "unit-length codes": "unit-length_codes",
        "a tenth told with fewer scales": "a_tenth_told_with_fewer_scales",
        "dead codes moved": "dead_codes_moved",
        "codes as moving means": "codes_as_moving_means",
        "warm start": "warm_start",
    }
    for number, folder in enumerate(rows.values()):
        for seed in range(2):
            directory = tmp_path / "codes" / folder / str(seed)
            directory.mkdir(parents=True)
            figures = {
                "psnr": 20.0 + number + seed,
                "ssim": 0.5,
                "lpips": 0.25,
                "codes_used": [4, 8],
                "perplexity": [2, 6],
            }
            line = {"step": 7, "kind": "validation", **figures}
            (directory / "metrics.jsonl").write_text(
                json.dumps({"step": 7, "kind": "train"}) + "\n" + json.dumps(line) + "\n"
            )
    script = [sys.executable, ROOT / "launch" / "tokenizer_ablation.py", "--only", "codes", "--steps", "7"]
    done = run([*script, "--data", "none", "--lpips-weights", "none", "--out", tmp_path], ROOT, pythonpath=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (tmp_path / "codes.md").read_text().splitlines()
    assert (
        table[2]
        == "| plain | 2 | 20.50 (20.00 to 21.00) | 0.500 (0.500 to 0.500) | 0.250 (0.250 to 0.250) | 4, 8 | 2, 6 |"
    )
    assert [line.split(" | ")[0] for line in table[2:]] == [f"| {name}" for name in rows]
    assert len(json.loads((tmp_path / "figures.json").read_text())) == 14
