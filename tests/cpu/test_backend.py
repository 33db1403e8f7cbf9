"""The backend of a mesh follows its devices, and other platforms compute the plain form."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from var_jax.cpu.backend import CPUS, ONE_CPU, backend_for
from var_jax.models.attention import plain_attention, xla_attention
from var_jax.models.backend import XLA
from var_jax.parallel.mesh import make_mesh


@pytest.mark.parametrize(
    ("platforms", "expected"), [(["cpu"], ONE_CPU), (["cpu"] * 4, CPUS), (["tpu"], XLA), (["cuda"] * 8, XLA)]
)
def test_devices_decide(platforms, expected):
    mesh = SimpleNamespace(devices=np.array([SimpleNamespace(platform=name) for name in platforms]))
    assert backend_for(mesh) == expected
    assert backend_for(mesh, plain_attention).attention is plain_attention


def test_without_a_mesh_it_is_the_default_device():
    assert backend_for() == backend_for(make_mesh(devices=jax.devices()[:1])) == ONE_CPU
    assert backend_for().attention is xla_attention


def test_other_platforms_compute_the_plain_form():
    """Heads may be split over a mesh there: the kernel goes into the product as it is, and convolutions stay."""
    shapes = jax.ShapeDtypeStruct((4, 8), jnp.float32), jax.ShapeDtypeStruct((8, 3, 2, 4), jnp.float32)
    image, kernel = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, 64, 64, 128), (3, 3, 128, 128)))

    def lowered(backend):
        product = lambda x, kernel: backend.product(x, kernel, 1, None, lambda kernel: kernel)
        names = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        convolve = lambda x, kernel: backend.convolution(x, kernel, (1, 1), ((1, 1), (1, 1)), **names)
        return jax.jit(product).lower(*shapes).as_text(), jax.jit(convolve).lower(image, kernel).as_text()

    product, convolution = lowered(XLA)
    assert "reshape" not in product and "stablehlo.convolution" in convolution
    for backend in (ONE_CPU, CPUS):
        product, convolution = lowered(backend)
        assert "reshape" in product and "stablehlo.convolution" not in convolution
