r"""The published tokenizer's shape on ImageNet, 256 px, with plain losses (L1, L2, quantizer).

    var-jax data prepare --name imagenet2012 --data-dir DATA
    var-jax train --config tokenizer_imagenet256 --workdir gs://BUCKET/tokenizer \
        --config.data.options.data_dir=DATA

Rates, decay, schedule and average follow the best public evidence of how the published one was trained
(the same authors' single-scale trainer); perceptual and adversarial losses are not part of this yet, so
expect smoother reconstructions than the published tokenizer's.
"""

from ml_collections import ConfigDict

from var_jax.configs import _common


def get_config(argument: str = "") -> ConfigDict:
    """No argument."""
    c = _common.tokenizer()
    c.data.kind = "tfds"
    c.data.options = ConfigDict({"name": "imagenet2012", "data_dir": ""})
    c.data.flip = True
    c.batch_size, c.epochs = 768, 250
    c.optimizer.learning_rate_per_256 = 1e-4
    c.evaluate_pictures = 5000
    return c
