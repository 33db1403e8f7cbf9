"""A tokenizer on your own pictures: a folder with one sub-folder per class.

    var-jax train --config folder_tokenizer --workdir runs/my_tokenizer --config.data.options.path=my_pictures

64 px, trained in a few minutes on two CPU cores; `folder_tokenizer:32`, `:128` or `:256` for another size (the latter
two need a GPU). More `steps` and `model.base_channels` give sharper pictures.
"""

from ml_collections import ConfigDict

from var_jax.configs import _common

# Picture side -> pyramid, channel multipliers, base channels, codes, batch size and steps.
SHAPES = {
    "32": ("1,2,3,5,8", (1, 1, 2), 16, 512, 8, 2000),
    "64": ("1,2,3,5,8", (1, 1, 2, 2), 16, 512, 8, 2500),
    "128": ("1,2,3,4,6,8", (1, 1, 2, 2, 4), 32, 1024, 16, 20_000),
    "256": ("1,2,3,4,5,6,8,10,13,16", (1, 1, 2, 2, 4), 64, 2048, 32, 40_000),
}


def get_config(argument: str = "64") -> ConfigDict:
    """The argument is the side of the pictures in pixels."""
    shape = _common.chosen("folder_tokenizer", argument or "64", SHAPES)
    pyramid, multipliers, base_channels, codes, batch_size, steps = shape
    c = _common.small_tokenizer(multipliers, base_channels, batch_size, steps)
    # A tenth is held out: small sets are memorised, and fewer pictures would not show it.
    c.data.kind, c.data.options = "folder", ConfigDict({"path": "", "validation_share": 0.1})
    c.model.pyramid, c.model.codebook_size = pyramid, codes
    c.codebook.means = True  # the best in docs/tokenizer.md
    c.report_every, c.evaluate_every, c.checkpoint_every = 100, 500, 500
    c.evaluate_pictures, c.evaluate_batch_size = 500, 50
    return c
