"""LPIPS beside the same arithmetic written in PyTorch, from the published structure, on the same weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.drawn import pictures, weights
from var_jax.losses.perceptual import lpips

torch = pytest.importorskip("torch")

POOL_BEFORE = (2, 4, 7, 10)  # convolutions that a 2x2 maximum comes before
LOOKED_AT = (1, 3, 6, 9, 12)


def original(params: dict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """[B], pictures NCHW in [-1, 1]."""
    shift = torch.tensor((-0.030, -0.088, -0.188)).view(1, 3, 1, 1)
    scale = torch.tensor((0.458, 0.448, 0.450)).view(1, 3, 1, 1)
    a, b, total = (x - shift) / scale, (y - shift) / scale, 0.0
    for index in range(13):
        if index in POOL_BEFORE:
            a, b = (torch.nn.functional.max_pool2d(h, 2, 2) for h in (a, b))
        layer = params["trunk"][f"conv_{index}"]
        kernel = torch.from_numpy(np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1)))
        bias = torch.from_numpy(layer["bias"])
        a, b = (torch.relu(torch.nn.functional.conv2d(h, kernel, bias, padding=1)) for h in (a, b))
        if index in LOOKED_AT:
            unit = [h / (torch.sqrt(torch.sum(h**2, dim=1, keepdim=True)) + 1e-10) for h in (a, b)]
            head = torch.from_numpy(params["heads"][LOOKED_AT.index(index)]).view(1, -1, 1, 1)
            total = total + torch.nn.functional.conv2d((unit[0] - unit[1]) ** 2, head).mean(dim=(1, 2, 3))
    return total


def test_values_and_gradients():
    params, (x, y) = weights(), pictures()
    theirs_x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    theirs = original(params, theirs_x, torch.from_numpy(y.transpose(0, 3, 1, 2).copy()))
    theirs.sum().backward()
    ours, grads = jax.value_and_grad(lambda x: jnp.sum(lpips(params, x, y)))(jnp.asarray(x))
    np.testing.assert_allclose(lpips(params, x, y), theirs.detach().numpy(), rtol=1e-4)
    np.testing.assert_allclose(ours, theirs.sum().item(), rtol=1e-4)
    expected = theirs_x.grad.numpy().transpose(0, 2, 3, 1)
    assert np.linalg.norm(grads - expected) < 1e-4 * np.linalg.norm(expected)
