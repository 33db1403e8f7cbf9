"""Visual AutoRegressive modeling (next-scale prediction) in JAX: the names that a notebook imports.

Importing this package starts no device and imports neither TensorFlow nor PyTorch.
"""

from var_jax.bundle import Bundle, load
from var_jax.errors import InputError
from var_jax.model_directory import bundled_model
from var_jax.pyramid import Pyramid

__version__ = "0.1.0"
__all__ = ["Bundle", "InputError", "Pyramid", "bundled_model", "load"]
