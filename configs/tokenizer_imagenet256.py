r"""The published tokenizer's shape on ImageNet, 256 px.

    var-jax data prepare --name imagenet2012 --data-dir DATA
    var-jax train --config tokenizer_imagenet256 --workdir gs://BUCKET/tokenizer \
        --config.data.options.data_dir=DATA --config.lpips_weights=vgg16.ckpt

The training of the published tokenizer was never released. The best evidence is the single-scale trainer that its
authors released (github.com/FoundationVision/vaex): L1 0.2, L2 1.0, LPIPS 1.0; a hinge discriminator after a fifth of
the training, rising over 2 %, 0.4 times the ratio of gradient norms at the last layer, clipped to 0.015 .. 1e4, on
pictures augmented by colours, shifts and holes; AdamW (0.5, 0.9), 3e-4 for a batch of 768, warm-up 1 %, cosine to
30 %, decay 0.005; average 0.9999; 250 epochs. They trained on OpenImages and call ImageNet slightly better.

Where this differs: the discriminator is one of patches with group norm, because theirs needs DINO's weights
(`adversary.kind=dino` with `adversary.dino_weights` is theirs; `adversary.kind=vgg` puts such heads on LPIPS' network,
which sharpened small pictures where patches did not yet); LeCam's 0.001 is from later multi-scale tokenizers; codes are
moving means, which did best on photographs (docs/tokenizer.md).
`--config.inception_weights=FILE` adds rFID to the reports. For the memory per chip, see docs/tokenizer.md.
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
    c.encoder_dtype = "bfloat16"  # in training only; tokens are made and judged in float32
    c.remat = "nothing_saveable"  # blocks are computed twice, or the activations of 256 px would not fit a chip
    c.loss.lpips = 1.0
    c.codebook.means = True
    c.adversary.kind, c.adversary.adaptive_range = "patch", (0.015, 1e4)
    c.optimizer.learning_rate_per_256 = 1e-4
    c.evaluate_pictures = 5000
    return c
