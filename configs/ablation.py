"""The paper's Table 3 on the drawn shapes, one row at a time, and four more of its choices; see docs/ablations.md.

var-jax ablate ablation --out runs/ablation

Stage 1 is `shapes_tokenizer` with the changes of TOKENIZERS, stage 2 the config below with the changes of a row. A row
with the same changes as the row before is the same model with other sampling settings.
"""

from typing import Any

from ml_collections import ConfigDict

from var_jax.configs import shapes_var

TOKENIZER = "shapes_tokenizer"
TOKENIZERS: dict[str, dict[str, Any]] = {
    "scales": {"steps": 1500},
    "one_scale": {"steps": 1500, "model.pyramid": "8"},
    "one_phi": {"steps": 1500, "model.num_phis": 1},
    "phi_a_scale": {"steps": 1500, "model.num_phis": None},
}

_PLAIN = {"model.adaln": False, "model.qk_norm": False}
_ADALN = {"model.qk_norm": False}
_NO_LIMIT, _TOP_K, _GUIDED = {}, {"top_k": 75}, {"top_k": 75, "guidance": 2.0}  # 75 of 512, as 600 of 4096


def get_config(argument: str = "") -> ConfigDict:
    """Stage 2, the same for every row. No argument."""
    c = shapes_var.get_config()
    c.steps = 800
    c.report_every, c.evaluate_every, c.checkpoint_every = 200, 0, 800
    c.evaluate_pictures = 1000
    c.sample_classes = 0
    return c


def get_rows(argument: str = "") -> list[dict[str, Any]]:
    """Rows in the table's order: name, tokenizer, changes of the config, sampling settings."""
    row = lambda name, changes, sampling, tokenizer="scales": {
        "name": name,
        "tokenizer": tokenizer,
        "changes": changes,
        "sampling": sampling,
    }
    raster = {"model.inputs": "previous_token"}
    return [
        row("raster order", {**_PLAIN, **raster}, _NO_LIMIT, "one_scale"),
        row("scale by scale", _PLAIN, _NO_LIMIT),
        row("+ AdaLN", _ADALN, _NO_LIMIT),
        row("+ top-k", _ADALN, _TOP_K),
        row("+ guidance", _ADALN, _GUIDED),
        row("+ qk norm (VAR)", {}, _GUIDED),
        row("VAR, shared AdaLN", {"model.shared_adaln": True}, _GUIDED),
        row("VAR, the last scale alone as input", {"model.inputs": "last_scale"}, _GUIDED),
        row("VAR, one phi for all scales", {}, _GUIDED, "one_phi"),
        row("VAR, one phi per scale", {}, _GUIDED, "phi_a_scale"),
        row("raster order, with all of it", raster, _GUIDED, "one_scale"),
    ]
