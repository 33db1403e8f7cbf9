"""A tokenizer on your own pictures: a folder with one sub-folder a class.

    var-jax train --config folder_tokenizer --workdir runs/my_tokenizer --config.data.options.path=my_pictures

64 px and a width that one GPU or a patient CPU trains; `folder_tokenizer:32` or `:128` for another
size (32, 64, 128 or 256). Expect recognisable reconstructions after some ten thousand pictures seen.
"""

from ml_collections import ConfigDict

from var_jax.configs import _common


def get_config(argument: str = "64") -> ConfigDict:
    """The argument is the side of the pictures in pixels."""
    c = _common.tokenizer()
    c.data.kind, c.data.options, c.data.workers = "folder", ConfigDict({"path": ""}), 0
    c.model.pyramid, c.model.channel_multipliers = _common.SIZES[int(argument or 64)]
    c.model.codebook_size, c.model.code_width = 1024, 16
    c.model.base_channels, c.model.norm_groups = 32, 8
    c.model.encoder_blocks = c.model.decoder_blocks = 1
    c.model.dropout = 0.0
    c.dtype, c.batch_size, c.steps = "float32", 32, 3000
    c.optimizer.learning_rate_per_256, c.optimizer.warmup, c.optimizer.final = 8e-3, 0.05, 0.05
    c.optimizer.betas = (0.9, 0.95)
    c.ema_decay = 0.995
    c.report_every, c.evaluate_every, c.checkpoint_every = 50, 500, 500
    c.evaluate_pictures, c.evaluate_batch_size = 512, 32
    return c
