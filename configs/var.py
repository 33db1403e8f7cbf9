r"""The published transformers' recipes on ImageNet: `var:d16`, `var:d20`, `var:d24`, `var:d30`, `var:d36-s`.

    var-jax data prepare --name imagenet2012 --data-dir DATA
    var-jax train --config var:d16 --workdir gs://BUCKET/var_d16 \
        --config.tokenizer=models/tokenizer --config.data.options.data_dir=DATA

`models/tokenizer` is the published one, imported (`var-jax import --tokenizer vae_ch160v4096z32.pth
--pyramid 256 --out models/tokenizer`; `--pyramid 512` for d36-s), or one of your own. FIDs of d16 to d30 are with
guidance 1.5.

| preset | parameters | pictures | published FID |
|---|---|---|---|
| d16 | 310 M | 256 px | 3.30 to 3.55 |
| d20 | 601 M | 256 px | 2.57 to 2.95 |
| d24 | 1.03 B | 256 px | 2.09 to 2.33 |
| d30 | 2.01 B | 256 px | 1.92 to 1.97 |
| d36-s | 2.35 B, shared AdaLN | 512 px | 2.63 |
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from var_jax.configs import _common


class Recipe(NamedTuple):
    """The differences between the published trainings: rates are for a batch of 256, the decay is that at the end."""

    epochs: int
    batch_size: int = 768
    learning_rate_per_256: float = 8e-5
    final: float = 0.01
    weight_decay_end: float = 0.05


RECIPES = {
    "d16": Recipe(200, learning_rate_per_256=1e-4, final=0.1),
    "d20": Recipe(250, learning_rate_per_256=1e-4, final=0.1),
    "d24": Recipe(350),
    "d30": Recipe(350, batch_size=1024, weight_decay_end=0.08),
    "d36-s": Recipe(350, weight_decay_end=0.08),
}


def get_config(argument: str = "d16") -> ConfigDict:
    """The argument is the preset."""
    preset = argument or "d16"
    recipe = _common.chosen("var", preset, RECIPES, "published model")
    c = _common.transformer(preset)
    c.data.kind = "tfds"
    c.data.options = ConfigDict({"name": "imagenet2012", "data_dir": ""})
    c.batch_size, c.epochs = recipe.batch_size, recipe.epochs
    c.optimizer.learning_rate_per_256, c.optimizer.final = recipe.learning_rate_per_256, recipe.final
    c.optimizer.weight_decay, c.optimizer.weight_decay_end = 0.05, recipe.weight_decay_end
    c.remat = "nothing_saveable"
    return c
