"""A small transformer on the tokens of `shapes_tokenizer`.

var-jax train --config shapes_var --workdir runs/shapes_var --config.tokenizer=runs/shapes_tokenizer
"""

from ml_collections import ConfigDict

from var_jax.configs import _common


def get_config(argument: str = "") -> ConfigDict:
    """No argument."""
    c = _common.transformer("d4")
    c.data.kind, c.data.options, c.data.workers = "shapes", ConfigDict({"size": 32}), 0
    c.data.enlarge = 1.0
    c.model.width, c.model.num_heads, c.model.gate_init = 128, 4, 0.1
    c.model.drop_path = 0.0
    c.dtype, c.batch_size, c.steps = "float32", 64, 800
    c.optimizer.learning_rate_per_256, c.optimizer.warmup = 8e-3, 0.05
    c.ema_decay = 0.995
    c.report_every, c.evaluate_every, c.checkpoint_every = 50, 400, 400
    c.evaluate_pictures, c.evaluate_batch_size = 256, 64
    return c
