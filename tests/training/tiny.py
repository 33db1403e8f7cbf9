"""The smallest configs of both stages that still have every part."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import _common


def _small(c: ConfigDict) -> ConfigDict:
    c.data.kind, c.data.options, c.data.enlarge, c.data.workers = "shapes", ConfigDict({"size": 8}), 1.0, 0
    c.dtype, c.batch_size, c.steps = "float32", 8, 6
    c.report_every, c.evaluate_every, c.checkpoint_every = 2, 0, 3
    c.evaluate_pictures, c.evaluate_batch_size = 12, 8
    c.optimizer.learning_rate_per_256 = 0.05
    c.mesh.data = -1
    return c


def tokenizer(**changes) -> ConfigDict:
    """8 px, three scales, sixteen codes."""
    c = _small(_common.tokenizer())
    c.model.pyramid, c.model.codebook_size, c.model.code_width = "1,2,4", 16, 4
    c.model.base_channels, c.model.channel_multipliers, c.model.norm_groups = 8, (1, 2), 4
    c.model.encoder_blocks = c.model.decoder_blocks = 1
    c.ema_decay = 0.9
    c.update(changes)
    return c.lock()


def transformer(tokenizer_directory: str, **changes) -> ConfigDict:
    """Two blocks of width 16."""
    c = _small(_common.transformer("d2"))
    c.tokenizer = str(tokenizer_directory)
    c.model.width, c.model.num_heads = 16, 2
    c.model.drop_path = 0.2
    c.update(changes)
    return c.lock()
