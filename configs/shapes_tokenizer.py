"""A small tokenizer for the drawn `shapes`, 32 px: minutes on a laptop.

var-jax train --config shapes_tokenizer --workdir runs/shapes_tokenizer
"""

from ml_collections import ConfigDict

from var_jax.configs import _common


def get_config(argument: str = "") -> ConfigDict:
    """No argument."""
    c = _common.tokenizer()
    c.data.kind, c.data.options, c.data.workers = "shapes", ConfigDict({"size": 32, "variety": 0.15}), 0
    c.data.enlarge = 1.0
    c.model.pyramid = "1,2,3,5,8"
    c.model.codebook_size, c.model.code_width = 512, 8
    # One group: with few channels, more groups would lose what the colours are.
    c.model.base_channels, c.model.channel_multipliers, c.model.norm_groups = 16, (1, 1, 2), 1
    c.model.encoder_blocks = c.model.decoder_blocks = 1
    c.model.dropout = 0.0
    c.dtype, c.batch_size, c.steps = "float32", 8, 2250  # many small steps learn most a minute here
    c.optimizer.learning_rate_per_256, c.optimizer.warmup, c.optimizer.final = 0.048, 0.05, 0.05
    c.optimizer.betas = (0.9, 0.99)
    c.ema_decay = 0.995
    c.report_every, c.evaluate_every, c.checkpoint_every = 250, 1125, 1125
    c.evaluate_pictures, c.evaluate_batch_size = 256, 64
    return c
