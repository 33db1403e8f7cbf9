"""The smallest configs of both stages, of which a run takes seconds; `:tokenizer` or `:transformer`."""

from ml_collections import ConfigDict

from var_jax.configs import _common


def get_config(argument: str = "") -> ConfigDict:
    """Four steps of a batch of eight, each saved, every second one evaluated."""
    c = {"tokenizer": _common.tokenizer, "transformer": lambda: _common.transformer("d2")}[argument]()
    c.data.kind, c.data.options, c.data.workers = "shapes", ConfigDict({"size": 8, "count": 64}), 0
    c.data.enlarge, c.data.flip = 1.25, True
    c.dtype, c.batch_size, c.steps = "float32", 8, 4
    c.report_every, c.evaluate_every, c.checkpoint_every, c.keep_checkpoints = 1, 2, 1, 4
    c.evaluate_pictures, c.evaluate_batch_size = 12, 8
    c.optimizer.learning_rate_per_256 = 0.005
    if argument == "tokenizer":
        c.steps = 2
        c.model.pyramid, c.model.codebook_size, c.model.code_width = "1,4", 16, 4
        c.model.base_channels, c.model.channel_multipliers, c.model.norm_groups = 8, (1, 2), 4
        c.model.encoder_blocks = c.model.decoder_blocks = 1
        c.ema_decay = 0.9
    else:
        c.model.width, c.model.num_heads, c.model.drop_path = 16, 2, 0.0
    return c
