"""What the package is and needs. `pip install -e .`, or `.[tpu]`, `.[cuda12]`, `.[cuda13]` for the machine at hand.

The folder configs/ is installed as `var_jax.configs`. The lower bounds are versions that the tests have
passed with on Python 3.11, and above the published flaws of libraries that read what others made (decoders of
pictures, requests, archives): see tests/packaging/test_lower_bounds.py. launch/requirements-test.txt pins the newest.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def version() -> str:
    """`__version__` of the package, read without importing it, since its requirements may not be there yet."""
    text = (ROOT / "var_jax" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


setup(
    name="var_jax",
    version=version(),
    description="Visual AutoRegressive modeling (next-scale prediction) in JAX: training, sampling, evaluation",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["var_jax", "var_jax.*"]), "var_jax.configs"],
    package_dir={"var_jax.configs": "configs"},
    package_data={"var_jax": ["py.typed", "bundled_model/*"], "var_jax.app": ["page/*"]},
    install_requires=[
        "etils[epath]>=1.12.2",
        "flax>=0.12.7",
        "grain>=0.2.15",
        "importlib-resources>=6.0",  # tensorflow-datasets needs it to prepare data, and does not say so
        "jax>=0.10.0",
        "ml-collections>=1.1.0",
        "numpy>=2.1.0",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.12.0",
        "pillow>=12.2.0",
        "safetensors>=0.8.0",
        "scipy>=1.14.0",
        "tensorflow-datasets>=4.9.10",
    ],
    extras_require={
        # jax's own extras choose the device runtime that belongs to its version: never install one beside it.
        "tpu": ["jax[tpu]>=0.10.0"],
        "app": ["aiohttp>=3.14.0"],  # the page of `var-jax app`
        "cuda12": ["jax[cuda12]>=0.10.0"],
        "cuda13": ["jax[cuda13]>=0.10.0"],
        "docs": ["mkdocs>=1.6", "mkdocs-material>=9.6", "mkdocstrings[python]>=1.0"],  # the site of mkdocs.yml
        "examples": ["scikit-image>=0.25", "scikit-learn>=1.6"],  # pictures that `var-jax data example` writes
        "figures": ["matplotlib>=3.10"],  # curves of the benchmarks
        "gcs": ["aiohttp>=3.14.0", "gcsfs>=2026.10.1"],  # gs:// work and model directories
        "hub": ["huggingface_hub>=0.34.0"],
        "tensorboard": ["tensorboardX>=2.6.5"],  # curves of a training run
        "test": [
            *("import-linter>=2.5", "pytest>=8.4", "pytest-timeout>=2.4", "pytest-xdist>=3.6", "ruff>=0.14"),
            *("setuptools>=78.1.1", "wheel"),
        ],
    },
    entry_points={"console_scripts": ["var-jax = var_jax.cli.main:command"]},
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
