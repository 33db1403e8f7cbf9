"""All five figures end to end beside PyTorch: the same pictures and weights, its own network and other formulas."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.small_judge import pictures
from tests.pretrained import drawn_inception
from var_jax.evaluation.pictures import open_pictures
from var_jax.evaluation.protocol import evaluate, inception_judge, open_reference
from var_jax.formats.tensors import write_tensors

torch = pytest.importorskip("torch")
functional = torch.nn.functional


class Original:
    """The published port's network, block by block under the names of its file."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self.tensors = {name: torch.from_numpy(array) for name, array in tensors.items()}

    def conv(self, x, name, **how):
        get = lambda part: self.tensors[f"{name}.{part}"]
        x = functional.conv2d(x, get("conv.weight"), **how)
        norm = (get(f"bn.{part}") for part in ("running_mean", "running_var", "weight", "bias"))
        return torch.relu(functional.batch_norm(x, *norm, eps=1e-3))

    def features(self, x):
        """Pictures uint8 NHWC -> pooled features, spatial features, logits without bias."""
        x = (resized(x.permute(0, 3, 1, 2).float()) - 128) / 128
        x = self.conv(x, "Conv2d_1a_3x3", stride=2)
        x = self.conv(self.conv(x, "Conv2d_2a_3x3"), "Conv2d_2b_3x3", padding=1)
        x = self.conv(self.conv(functional.max_pool2d(x, 3, 2), "Conv2d_3b_1x1"), "Conv2d_4a_3x3")
        x = functional.max_pool2d(x, 3, 2)
        for name in "bcd":
            x = self.block_a(x, f"Mixed_5{name}.")
        x = self.reduction_6a(x)
        for name in "bcde":
            x = self.block_c(x, f"Mixed_6{name}.")
            if name == "d":
                spatial = x[:, :7].permute(0, 2, 3, 1).flatten(1)
        x = self.block_e(self.reduction_7a(x), "Mixed_7b.", average)
        x = self.block_e(x, "Mixed_7c.", lambda x: functional.max_pool2d(x, 3, 1, 1))
        pool = x.mean(dim=(2, 3))
        return pool, spatial, pool @ self.tensors["fc.weight"].T

    def block_a(self, x, at):
        five = self.conv(self.conv(x, at + "branch5x5_1"), at + "branch5x5_2", padding=2)
        three = self.conv(self.conv(x, at + "branch3x3dbl_1"), at + "branch3x3dbl_2", padding=1)
        three = self.conv(three, at + "branch3x3dbl_3", padding=1)
        return torch.cat(
            [self.conv(x, at + "branch1x1"), five, three, self.conv(average(x), at + "branch_pool")], dim=1
        )

    def reduction_6a(self, x):
        double = self.conv(self.conv(x, "Mixed_6a.branch3x3dbl_1"), "Mixed_6a.branch3x3dbl_2", padding=1)
        double = self.conv(double, "Mixed_6a.branch3x3dbl_3", stride=2)
        return torch.cat([self.conv(x, "Mixed_6a.branch3x3", stride=2), double, functional.max_pool2d(x, 3, 2)], dim=1)

    def block_c(self, x, at):
        row, column = {"padding": (0, 3)}, {"padding": (3, 0)}
        seven = self.conv(self.conv(x, at + "branch7x7_1"), at + "branch7x7_2", **row)
        seven = self.conv(seven, at + "branch7x7_3", **column)
        double = self.conv(x, at + "branch7x7dbl_1")
        for number, how in ((2, column), (3, row), (4, column), (5, row)):
            double = self.conv(double, f"{at}branch7x7dbl_{number}", **how)
        return torch.cat(
            [self.conv(x, at + "branch1x1"), seven, double, self.conv(average(x), at + "branch_pool")], dim=1
        )

    def reduction_7a(self, x):
        three = self.conv(self.conv(x, "Mixed_7a.branch3x3_1"), "Mixed_7a.branch3x3_2", stride=2)
        seven = self.conv(self.conv(x, "Mixed_7a.branch7x7x3_1"), "Mixed_7a.branch7x7x3_2", padding=(0, 3))
        seven = self.conv(seven, "Mixed_7a.branch7x7x3_3", padding=(3, 0))
        seven = self.conv(seven, "Mixed_7a.branch7x7x3_4", stride=2)
        return torch.cat([three, seven, functional.max_pool2d(x, 3, 2)], dim=1)

    def block_e(self, x, at, pool):
        three = self.conv(x, at + "branch3x3_1")
        double = self.conv(self.conv(x, at + "branch3x3dbl_1"), at + "branch3x3dbl_2", padding=1)
        both = lambda x, name: [
            self.conv(x, f"{at}{name}a", padding=(0, 1)),
            self.conv(x, f"{at}{name}b", padding=(1, 0)),
        ]
        parts = [self.conv(x, at + "branch1x1"), *both(three, "branch3x3_2"), *both(double, "branch3x3dbl_3")]
        return torch.cat([*parts, self.conv(pool(x), at + "branch_pool")], dim=1)


def average(x):
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def resized(x):
    """Bilinear to 299 px as TensorFlow 1 did, by a matrix a side."""
    size = x.shape[2]
    weights = torch.zeros(299, size)
    for place in range(299):
        low, share = divmod(place * size / 299, 1)
        weights[place, int(low)] += 1 - share
        weights[place, min(int(low) + 1, size - 1)] += share
    return weights @ x @ weights.T


def frechet(a, b):
    """By the singular values of what the centred rows have in common: no covariance is ever made."""
    means = [rows.mean(dim=0) for rows in (a, b)]
    a, b = ((rows - mean) / (len(rows) - 1) ** 0.5 for rows, mean in zip((a, b), means, strict=True))
    common = torch.linalg.svdvals(a @ b.T).sum()
    return float(((means[0] - means[1]) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * common)


def within(points, centres):
    """The share of points in any ball around a centre that reaches its third neighbour."""
    radii = torch.cdist(centres, centres).sort(dim=1).values[:, 3]
    return float((torch.cdist(points, centres) <= radii).any(dim=1).double().mean())


def test_five_figures(tmp_path):
    """On eight devices, with batches that are not full."""
    samples, reference = pictures(6, side=50), pictures(5, seed=1, side=50) // 4 * 3 + 20
    (tmp_path / "samples").mkdir()
    for number, image in enumerate(samples):
        Image.fromarray(image).save(tmp_path / "samples" / f"{number:02}.png")
    np.savez(tmp_path / "reference.npz", arr_0=reference)
    write_tensors(tmp_path / "drawn.pth", drawn_inception.tensors(), {})
    judge = inception_judge(tmp_path / "drawn.pth", batch=8)
    report, _ = evaluate(
        open_pictures(tmp_path / "samples"), open_reference(tmp_path / "reference.npz", judge), judge, split_size=3
    )
    network = Original(drawn_inception.tensors())
    with torch.no_grad():
        theirs = [network.features(torch.from_numpy(images)) for images in (samples, reference)]
    (pool, spatial, logits), (pool_r, spatial_r, _) = [[part.double() for part in parts] for parts in theirs]
    assert report["fid"] == pytest.approx(frechet(pool, pool_r), rel=1e-3)
    assert report["sfid"] == pytest.approx(frechet(spatial, spatial_r), rel=1e-3)
    p = torch.softmax(logits, dim=1).reshape(2, 3, -1)
    divergence = (p * (p.log() - p.mean(dim=1, keepdim=True).log())).sum(dim=2).mean(dim=1)
    assert report["inception_score"] == pytest.approx(float(divergence.exp().mean()), rel=1e-4)
    pair = within(pool, pool_r), within(pool_r, pool)
    assert (report["precision"], report["recall"]) == pytest.approx(pair)
    assert min(pair) < 1
