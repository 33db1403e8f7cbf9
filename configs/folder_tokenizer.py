"""A tokenizer on your own pictures: a folder with one sub-folder per class.

    var-jax train --config folder_tokenizer --workdir runs/my_tokenizer --config.data.options.path=my_pictures

64 px, trained in a few minutes on two CPU cores; `folder_tokenizer:32`, `:128` or `:256` for another size (the latter
two need a GPU). More `steps` and `model.base_channels` give sharper pictures.
"""

from ml_collections import ConfigDict

from var_jax.configs import _common
from var_jax.errors import InputError

# Picture side -> pyramid, channel multipliers, base channels, codes, batch size and steps.
SHAPES = {
    32: ("1,2,3,5,8", (1, 1, 2), 16, 512, 8, 2000),
    64: ("1,2,3,5,8", (1, 1, 2, 2), 16, 512, 8, 2500),
    128: (*_common.SIZES[128], 32, 1024, 16, 20_000),
    256: (*_common.SIZES[256], 64, 2048, 32, 40_000),
}


def get_config(argument: str = "64") -> ConfigDict:
    """The argument is the side of the pictures in pixels."""
    if (argument := argument or "64") not in map(str, SHAPES):
        raise InputError(f"folder_tokenizer:{argument}: no such size, expected one of {', '.join(map(str, SHAPES))}")
    c = _common.tokenizer()
    pyramid, multipliers, base_channels, codes, batch_size, steps = SHAPES[int(argument)]
    # A tenth is held out: small sets are memorised, and fewer pictures would not show it.
    c.data.kind, c.data.options = "folder", ConfigDict({"path": "", "validation_share": 0.1})
    c.data.workers = 0
    c.model.pyramid, c.model.channel_multipliers = pyramid, multipliers
    c.model.codebook_size, c.model.code_width = codes, 8
    # One group: with few channels, more groups would lose the colours.
    c.model.base_channels, c.model.norm_groups = base_channels, 1
    c.model.encoder_blocks = c.model.decoder_blocks = 1
    c.model.dropout = 0.0
    c.codebook.means = True  # the best in docs/tokenizer.md
    c.dtype, c.batch_size, c.steps = "float32", batch_size, steps  # many small steps learn most per minute here
    # 1.5e-3 at the peak, whatever the batch: a higher one is unstable.
    c.optimizer.learning_rate_per_256 = 1.5e-3 * 256 / batch_size
    c.optimizer.warmup, c.optimizer.final = 0.05, 0.05
    c.optimizer.betas = (0.9, 0.99)
    c.ema_decay = 0.995
    c.report_every, c.evaluate_every, c.checkpoint_every = 100, 500, 500
    c.evaluate_pictures, c.evaluate_batch_size = 500, 50
    return c
