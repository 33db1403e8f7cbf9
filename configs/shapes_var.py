"""A small transformer on the tokens of `shapes_tokenizer`.

var-jax train --config shapes_var --workdir runs/shapes_var --config.tokenizer=runs/shapes_tokenizer

32 px; `shapes_var:64` for the tokens of `shapes_tokenizer:64`, which is the model that comes with the package.
"""

from ml_collections import ConfigDict

from var_jax.configs import _common
from var_jax.errors import InputError

# Picture side -> variety of the pictures, blocks, steps.
SHAPES = {32: (0.15, 3, 1200), 64: (0.15, 3, 1100)}


def get_config(argument: str = "32") -> ConfigDict:
    """The argument is the side of the pictures in pixels."""
    if (argument := argument or "32") not in map(str, SHAPES):
        raise InputError(f"shapes_var:{argument}: no such size, expected one of {', '.join(map(str, SHAPES))}")
    size = int(argument)
    variety, depth, steps = SHAPES[size]
    c = _common.transformer("d3")
    c.data.kind, c.data.options, c.data.workers = "shapes", ConfigDict({"size": size, "variety": variety}), 0
    c.data.enlarge = 1.0
    c.model.depth, c.model.width, c.model.num_heads, c.model.drop_path = depth, 96, 2, 0.0
    c.model.gate_init, c.model.input_init = 0.1, 10.0  # blocks near the identity would learn slowly at first
    c.dtype, c.batch_size, c.steps = "float32", 24, steps
    c.optimizer.learning_rate_per_256, c.optimizer.warmup = 0.05, 0.05
    c.optimizer.turn, c.optimizer.final = 0.3, 0.02
    c.ema_decay = 0.995
    c.report_every, c.evaluate_every, c.checkpoint_every = 100, 600, 600
    c.evaluate_pictures, c.evaluate_batch_size = 200, 50
    c.sample_guidance = 3.0
    return c
