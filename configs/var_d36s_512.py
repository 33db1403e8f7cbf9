r"""VAR-d36-s, 2.35 B parameters, shared AdaLN, ImageNet 512 px: published FID 2.63.

    var-jax data prepare --name imagenet2012 --data-dir DATA
    var-jax train --config var_d36s_512 --workdir gs://BUCKET/var_d36s_512 \
        --config.tokenizer=models/tokenizer --config.data.options.data_dir=DATA

`models/tokenizer` is the published one, imported (`var-jax import --tokenizer vae_ch160v4096z32.pth
--pyramid 512 --out models/tokenizer`), or one of your own. The published recipe: 350 epochs, a batch of 768.
"""

from ml_collections import ConfigDict

from var_jax.configs import _common


def get_config(argument: str = "") -> ConfigDict:
    """No argument."""
    c = _common.transformer("d36-s")
    c.data.kind = "tfds"
    c.data.options = ConfigDict({"name": "imagenet2012", "data_dir": ""})
    c.batch_size, c.epochs = 768, 350
    c.optimizer.learning_rate_per_256, c.optimizer.final = 8e-5, 0.01
    c.optimizer.weight_decay, c.optimizer.weight_decay_end = 0.05, 0.08
    c.remat = "nothing_saveable"
    return c
