r"""Fine-tunes a published (imported) transformer on your own pictures and classes, 256 px.

    var-jax import --published d16 --out models/d16
    var-jax train --config finetune_folder --workdir runs/mine --config.tokenizer=models/d16 \
        --config.init_from=models/d16 --config.data.options.path=my_pictures

The class table is drawn anew if the number of classes differs (the log says so); all other parameters are
kept. The model's shape has to be the published one's: `finetune_folder:d20` for d20, and so on.
"""

from ml_collections import ConfigDict

from var_jax.configs import _common


def get_config(argument: str = "d16") -> ConfigDict:
    """The argument is the preset of the model to start from."""
    c = _common.transformer(argument or "d16")
    c.data.kind, c.data.options = "folder", ConfigDict({"path": ""})
    c.batch_size, c.steps = 64, 5000
    c.optimizer.learning_rate_per_256, c.optimizer.warmup = 2e-5, 0.05
    c.ema_decay = 0.999
    c.evaluate_every, c.evaluate_pictures, c.evaluate_batch_size = 500, 1000, 64
    return c
