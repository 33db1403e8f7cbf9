"""A small tokenizer for the drawn `shapes`: minutes on a laptop.

var-jax train --config shapes_tokenizer --workdir runs/shapes_tokenizer

32 px; `shapes_tokenizer:64` for 64 px, which is the tokenizer of the model that comes with the package.
"""

from ml_collections import ConfigDict

from var_jax.configs import _common
from var_jax.errors import InputError

# Picture side -> variety of the pictures, pyramid, channel multipliers, weight of edges in the loss, steps.
SHAPES = {
    32: (0.15, "1,2,3,5,8", (1, 1, 2), 0.0, 2250),
    64: (0.3, "1,2,3,4,6,8", (1, 2, 2, 4), 0.2, 3000),
}


def get_config(argument: str = "32") -> ConfigDict:
    """The argument is the side of the pictures in pixels."""
    if (argument := argument or "32") not in map(str, SHAPES):
        raise InputError(f"shapes_tokenizer:{argument}: no such size, expected one of {', '.join(map(str, SHAPES))}")
    size = int(argument)
    variety, pyramid, multipliers, structure, steps = SHAPES[size]
    c = _common.tokenizer()
    c.data.kind, c.data.options, c.data.workers = "shapes", ConfigDict({"size": size, "variety": variety}), 0
    c.data.enlarge = 1.0
    c.model.pyramid = pyramid
    c.model.codebook_size, c.model.code_width = 512, 8
    # One group: with few channels, more groups would lose what the colours are.
    c.model.base_channels, c.model.channel_multipliers, c.model.norm_groups = 16, multipliers, 1
    c.model.encoder_blocks = c.model.decoder_blocks = 1
    c.model.dropout = 0.0
    c.loss.structure = structure
    c.dtype, c.batch_size, c.steps = "float32", 8, steps  # many small steps learn most a minute here
    c.optimizer.learning_rate_per_256, c.optimizer.warmup, c.optimizer.final = 0.048, 0.05, 0.05
    c.optimizer.betas = (0.9, 0.99)
    c.ema_decay = 0.995
    c.report_every, c.evaluate_every, c.checkpoint_every = 250, 1125, 1125
    c.evaluate_pictures, c.evaluate_batch_size = 256, 64
    return c
