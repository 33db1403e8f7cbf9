"""A small transformer on the tokens of `shapes_tokenizer`.

var-jax train --config shapes_var --workdir runs/shapes_var --config.tokenizer=runs/shapes_tokenizer

32 px; `shapes_var:64` for the tokens of `shapes_tokenizer:64`, which is the model that comes with the package.
"""

from ml_collections import ConfigDict

from var_jax.configs import _common

# Picture side -> steps.
STEPS = {"32": 1200, "64": 1100}


def get_config(argument: str = "32") -> ConfigDict:
    """The argument is the side of the pictures in pixels."""
    size = argument or "32"
    c = _common.small_transformer(_common.chosen("shapes_var", size, STEPS))
    c.data.kind, c.data.options = "shapes", ConfigDict({"size": int(size), "variety": 0.15})
    c.data.enlarge = 1.0
    c.model.depth, c.model.drop_path = 3, 0.0
    c.report_every, c.evaluate_every, c.checkpoint_every = 100, 600, 600
    c.evaluate_pictures = 200
    return c
