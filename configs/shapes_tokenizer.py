r"""A small tokenizer for the drawn `shapes`: minutes on a laptop.

var-jax train --config shapes_tokenizer --workdir runs/shapes_tokenizer

32 px. `shapes_tokenizer:64` is for 64 px, and should start from a tokenizer of photographs, which has already learned
colours and edges: from scratch it takes several times as many steps (17.8 dB after 900, instead of 20.1 after 150).
The tokenizer of the model that comes with the package is trained like this:

    var-jax data example --kind photographs --out photographs
    var-jax train --config folder_tokenizer:64 --workdir runs/photographs_tokenizer \
        --config.data.options.path=photographs --config.codebook.means=False
    var-jax train --config shapes_tokenizer:64 --workdir runs/shapes_tokenizer_64 \
        --config.init_from=runs/photographs_tokenizer
"""

from ml_collections import ConfigDict

from var_jax.configs import _common
from var_jax.errors import InputError

# Picture side -> variety of the pictures, channel multipliers, steps.
SHAPES = {32: (0.15, (1, 1, 2), 2250), 64: (0.2, (1, 1, 2, 2), 1500)}


def get_config(argument: str = "32") -> ConfigDict:
    """The argument is the side of the pictures in pixels."""
    if (argument := argument or "32") not in map(str, SHAPES):
        raise InputError(f"shapes_tokenizer:{argument}: no such size, expected one of {', '.join(map(str, SHAPES))}")
    size = int(argument)
    variety, multipliers, steps = SHAPES[size]
    c = _common.tokenizer()
    c.data.kind, c.data.options, c.data.workers = "shapes", ConfigDict({"size": size, "variety": variety}), 0
    c.data.enlarge = 1.0
    c.model.pyramid = "1,2,3,5,8"
    c.model.codebook_size, c.model.code_width = 512, 8
    # One group: with few channels, more groups would lose the colours.
    c.model.base_channels, c.model.channel_multipliers, c.model.norm_groups = 16, multipliers, 1
    c.model.encoder_blocks = c.model.decoder_blocks = 1
    c.model.dropout = 0.0
    c.dtype, c.batch_size, c.steps = "float32", 8, steps  # many small steps learn most per minute here
    c.optimizer.learning_rate_per_256, c.optimizer.warmup, c.optimizer.final = 0.048, 0.05, 0.05
    c.optimizer.betas = (0.9, 0.99)
    c.ema_decay = 0.995
    c.report_every, c.evaluate_every, c.checkpoint_every = 250, 1125, 1125
    c.evaluate_pictures, c.evaluate_batch_size = 256, 64
    return c
