"""Experiments as short Python files with `get_config(arg)`; installed as `var_jax.configs`."""
