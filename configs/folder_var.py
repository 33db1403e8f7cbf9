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
    c = _common.small_transformer(1000)
    c.data.kind, c.data.options = "folder", ConfigDict({"path": "", "validation_share": 0.1})
    c.model.drop_path = 0.05
    c.report_every, c.evaluate_every, c.checkpoint_every = 100, 250, 250
    c.evaluate_pictures = 500
    return c
