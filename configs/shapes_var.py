"""A small transformer on the tokens of `shapes_tokenizer`.

var-jax train --config shapes_var --workdir runs/shapes_var --config.tokenizer=runs/shapes_tokenizer
"""

from ml_collections import ConfigDict

from var_jax.configs import _common


def get_config(argument: str = "") -> ConfigDict:
    """No argument."""
    c = _common.transformer("d3")
    c.data.kind, c.data.options, c.data.workers = "shapes", ConfigDict({"size": 32, "variety": 0.15}), 0
    c.data.enlarge = 1.0
    c.model.width, c.model.num_heads, c.model.drop_path = 96, 2, 0.0
    c.model.gate_init, c.model.input_init = 0.1, 10.0  # what starts near the identity starts late
    c.dtype, c.batch_size, c.steps = "float32", 24, 1200
    c.optimizer.learning_rate_per_256, c.optimizer.warmup = 0.05, 0.05
    c.optimizer.turn, c.optimizer.final = 0.3, 0.02
    c.ema_decay = 0.995
    c.report_every, c.evaluate_every, c.checkpoint_every = 100, 600, 600
    c.evaluate_pictures, c.evaluate_batch_size = 200, 50
    c.sample_guidance = 3.0
    return c
