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

# Picture side -> variety of the pictures, channel multipliers, steps.
SHAPES = {"32": (0.15, (1, 1, 2), 2250), "64": (0.2, (1, 1, 2, 2), 1500)}


def get_config(argument: str = "32") -> ConfigDict:
    """The argument is the side of the pictures in pixels."""
    size = argument or "32"
    variety, multipliers, steps = _common.chosen("shapes_tokenizer", size, SHAPES)
    c = _common.small_tokenizer(multipliers, 16, 8, steps)
    c.data.kind, c.data.options = "shapes", ConfigDict({"size": int(size), "variety": variety})
    c.data.enlarge = 1.0
    c.report_every, c.evaluate_every, c.checkpoint_every = 250, 1125, 1125
    c.evaluate_pictures, c.evaluate_batch_size = 256, 64
    return c
