r"""VAR-d20, 601 M parameters, ImageNet 256 px: published FID 2.57 to 2.95 with guidance 1.5.

    var-jax data prepare --name imagenet2012 --data-dir DATA
    var-jax train --config var_d20 --workdir gs://BUCKET/var_d20 \
        --config.tokenizer=models/tokenizer --config.data.options.data_dir=DATA

`models/tokenizer` is the published one, imported (`var-jax import --tokenizer vae_ch160v4096z32.pth
--pyramid 256 --out models/tokenizer`), or one of your own. The published recipe: 250 epochs, a batch of 768.
"""

from ml_collections import ConfigDict

from var_jax.configs import _common


def get_config(argument: str = "") -> ConfigDict:
    """No argument."""
    c = _common.transformer("d20")
    c.data.kind = "tfds"
    c.data.options = ConfigDict({"name": "imagenet2012", "data_dir": ""})
    c.batch_size, c.epochs = 768, 250
    c.optimizer.learning_rate_per_256, c.optimizer.final = 1e-4, 0.1
    c.optimizer.weight_decay, c.optimizer.weight_decay_end = 0.05, 0.05
    c.remat = "nothing_saveable"
    return c
