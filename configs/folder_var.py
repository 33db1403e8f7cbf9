r"""A transformer on your own pictures, one sub-folder a class; classes are counted from the folder.

    var-jax train --config folder_var --workdir runs/my_var \
        --config.tokenizer=runs/my_tokenizer --config.data.options.path=my_pictures

Its size follows the tokenizer's pyramid and the classes found. Small sets are learned by heart sooner or
later: keep the checkpoint with the best validation loss (it is kept beside the newest).
"""

from ml_collections import ConfigDict

from var_jax.configs import _common


def get_config(argument: str = "") -> ConfigDict:
    """No argument."""
    c = _common.transformer("d6")
    c.data.kind, c.data.options, c.data.workers = "folder", ConfigDict({"path": ""}), 0
    c.model.width, c.model.num_heads, c.model.gate_init = 192, 6, 0.1
    c.model.drop_path = 0.05
    c.dtype, c.batch_size, c.steps = "float32", 32, 3000
    c.optimizer.learning_rate_per_256, c.optimizer.warmup = 8e-3, 0.05
    c.ema_decay = 0.995
    c.report_every, c.evaluate_every, c.checkpoint_every = 50, 500, 500
    c.evaluate_pictures, c.evaluate_batch_size = 512, 32
    return c
