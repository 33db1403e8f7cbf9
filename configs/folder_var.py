r"""A transformer on your own pictures, one sub-folder per class; classes are counted from the folder.

    var-jax train --config folder_var --workdir runs/my_var \
        --config.tokenizer=runs/my_tokenizer --config.data.options.path=my_pictures

Its size follows the tokenizer's pyramid and the classes found. Small sets are memorised sooner or later: if
the validation loss rises again, fewer `steps` or more `model.drop_path` are better (the checkpoint with the
lowest loss is kept beside the newest). For many thousand pictures and a GPU take
`--config.model.preset=d8 --config.model.width=384 --config.model.num_heads=6
--config.optimizer.learning_rate_per_256=2e-3` and more steps.
"""

from ml_collections import ConfigDict

from var_jax.configs import _common


def get_config(argument: str = "") -> ConfigDict:
    """No argument."""
    c = _common.transformer("d3")
    c.data.kind, c.data.options = "folder", ConfigDict({"path": "", "validation_share": 0.1})
    c.data.workers = 0
    c.model.width, c.model.num_heads, c.model.drop_path = 96, 2, 0.05
    c.model.gate_init, c.model.input_init = 0.1, 10.0  # blocks near the identity would learn slowly at first
    c.dtype, c.batch_size, c.steps = "float32", 24, 1000
    c.optimizer.learning_rate_per_256, c.optimizer.warmup = 0.05, 0.05
    c.optimizer.turn, c.optimizer.final = 0.3, 0.02
    c.ema_decay = 0.995
    c.report_every, c.evaluate_every, c.checkpoint_every = 100, 250, 250
    c.evaluate_pictures, c.evaluate_batch_size = 500, 50
    c.sample_guidance = 3.0
    return c
