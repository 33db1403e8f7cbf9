"""Experiments as short Python files with `get_config(argument)`; installed as `var_jax.configs`."""

# Names of earlier versions, which the command line still takes -> the name of the same config today.
RENAMED = {
    "var_d16": "var:d16",
    "var_d20": "var:d20",
    "var_d24": "var:d24",
    "var_d30": "var:d30",
    "var_d36s_512": "var:d36-s",
}
