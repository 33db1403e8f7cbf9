"""The report on samples: each figure where it belongs, and a sentence for everything that makes it incomparable."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from PIL import Image

from tests.evaluation.small_judge import POOL, SPATIAL, network, pictures, small_judge
from tests.pretrained import drawn_inception
from var_jax.errors import InputError
from var_jax.evaluation.frechet import frechet_distance, mean_and_covariance
from var_jax.evaluation.neighbours import precision_recall
from var_jax.evaluation.pictures import open_pictures
from var_jax.evaluation.protocol import evaluate, inception_judge, open_reference
from var_jax.evaluation.statistics import Statistics, write_statistics
from var_jax.formats.tensors import write_tensors

REPORT = {"inception_score", "inception_score_shuffled", "precision", "recall", "fid", "sfid"}


@pytest.fixture(scope="module")
def judge():
    return small_judge()


@pytest.fixture
def files(tmp_path):
    """Samples, reference pictures, and what both features are by the network alone."""
    names, found = {"samples": (40, 0), "reference": (30, 1)}, {}
    for name, (count, seed) in names.items():
        images = pictures(count, seed)
        np.savez(tmp_path / f"{name}.npz", arr_0=images)
        found[name] = [np.asarray(x) for x in network(np.asarray(small_judge().extractor._params), images)]
    return tmp_path, found


def run(judge, folder, reference="reference.npz", **options):
    target = open_reference(folder / reference, judge) if reference else None
    return evaluate(open_pictures(folder / "samples.npz"), target, judge, **options)


def test_all_figures(judge, files):
    folder, features = files
    report, judged = run(judge, folder, split_size=10)
    (pool, spatial), (pool_r, spatial_r) = features["samples"], features["reference"]
    assert report["fid"] == pytest.approx(frechet_distance(*mean_and_covariance(pool), *mean_and_covariance(pool_r)))
    spatials = (*mean_and_covariance(spatial), *mean_and_covariance(spatial_r))
    assert report["sfid"] == pytest.approx(frechet_distance(*spatials), rel=1e-4)
    pair = precision_recall(pool, pool_r, judge.extractor.mesh)
    assert (report["precision"], report["recall"]) == pair
    assert 0 < pair[1] < 1
    p = np.exp(pool @ judge.head)
    p = (p / p.sum(axis=1, keepdims=True)).reshape(4, 10, -1)
    by_hand = np.exp(np.mean(np.sum(p * np.log(p / p.mean(axis=1, keepdims=True)), axis=2), axis=1))
    assert report["inception_score"] == pytest.approx(by_hand.mean(), rel=1e-4)
    assert report["inception_score_std"] == pytest.approx(by_hand.std(), rel=1e-3)
    assert (report["samples"], report["reference_pictures"], report["distances"]) == (40, 30, "float32")
    np.testing.assert_allclose(judged.pool_NxF, pool, rtol=1e-4, atol=1e-6)
    assert report["notes"] == ["40 samples, published figures use 50000; FID falls with the number"]


def test_eight_devices_report_the_same(judge, files):
    """Forty samples in batches of sixteen: the last one is half filling."""
    one, eight = run(judge, files[0])[0], run(small_judge(8, 16), files[0])[0]
    numbers = {name for name, value in one.items() if isinstance(value, float)}
    assert numbers >= REPORT
    assert all(eight[name] == pytest.approx(one[name], rel=1e-5) for name in numbers)


def test_stored_statistics_come_first(judge, files, tmp_path):
    """As in the published files: statistics of many pictures, and a few of these for precision and recall."""
    folder, features = files
    whole = run(judge, folder)[0]
    other = [Statistics(*mean_and_covariance(f + 0.5)) for f in features["reference"]]
    write_statistics(folder / "statistics.npz", *other, 30)
    statistics_only = run(judge, folder, "statistics.npz")[0]
    assert statistics_only["fid"] > whole["fid"] + 0.5
    assert statistics_only["sfid"] > whole["sfid"] + 0.5
    assert (statistics_only["precision"], statistics_only["recall"]) == (None, None)
    assert "no precision and recall: the reference has statistics only, no pictures" in statistics_only["notes"]
    with np.load(folder / "statistics.npz") as file:
        np.savez(folder / "both.npz", arr_0=pictures(30, 1), **file)
    both = run(judge, folder, "both.npz")[0]
    assert (both["fid"], both["sfid"]) == (statistics_only["fid"], statistics_only["sfid"])
    assert (both["precision"], both["recall"]) == (whole["precision"], whole["recall"])
    with np.load(folder / "statistics.npz") as file:
        np.savez(folder / "slim.npz", mu=file["mu"], sigma=file["sigma"])
    slim = run(judge, folder, "slim.npz")[0]
    assert slim["fid"] == both["fid"]
    assert slim["sfid"] is None
    assert "no sFID: the reference has no mu_s and sigma_s" in slim["notes"]


def test_statistics_of_samples_serve_as_a_reference(judge, files):
    folder, _ = files
    _, judged = run(judge, folder, None)
    write_statistics(folder / "own.npz", judged.pool, judged.spatial, 40)
    report = run(judge, folder, "own.npz")[0]
    assert report["fid"] < 1e-6
    assert report["sfid"] < 1e-6
    with np.load(folder / "own.npz") as file:
        assert {name: file[name].shape for name in file.files} == {
            **{"mu": (POOL,), "sigma": (POOL, POOL), "mu_s": (SPATIAL,), "sigma_s": (SPATIAL, SPATIAL), "count": ()}
        }
    with pytest.raises(InputError, match="statistics are written as .npz"):
        write_statistics(folder / "own.npy", judged.pool, judged.spatial, 40)


def test_without_a_reference(judge, files):
    report = run(judge, files[0], None)[0]
    assert [report[name] for name in ("fid", "sfid", "precision", "recall")] == [None] * 4
    assert report["inception_score"] > 1
    assert "no reference: the Inception score alone" in report["notes"]


@pytest.mark.parametrize("name", ["mu", "sigma", "mu_s", "sigma_s"])
def test_references_are_checked_before_pictures_are_judged(judge, files, name):
    """Numbers that are not finite, matrices that are no covariance, damaged names: file and array are named."""
    folder, _ = files
    right = {"mu": np.zeros(POOL), "sigma": np.eye(POOL), "mu_s": np.zeros(SPATIAL), "sigma_s": np.eye(SPATIAL)}
    np.savez(folder / "right.npz", **right)
    assert open_reference(folder / "right.npz", judge).spatial is not None

    def refused(needle):
        with pytest.raises(InputError, match=f"odd.npz: {needle}") as caught:
            open_reference(folder / "odd.npz", judge)
        assert "\n" not in str(caught.value)

    for odd in (np.nan, np.inf):
        wrong = {key: value.copy() for key, value in right.items()}
        wrong[name].flat[3] = odd
        np.savez(folder / "odd.npz", **wrong)
        refused(f"{name} holds something else than finite numbers")
    np.savez(folder / "odd.npz", **right | {name: right[name].astype(complex)})
    refused(f"{name} holds something else")
    if name.startswith("sigma"):
        for wrong in (-right[name], right[name] + np.tri(len(right[name]), k=-1)):
            np.savez(folder / "odd.npz", **right | {name: wrong})
            refused(f"{name} is no covariance")
    content = (folder / "right.npz").read_bytes()
    place = content.rindex(f"{name}.npy".encode())  # in the zip's directory
    (folder / "odd.npz").write_bytes(content[:place] + b"x" + content[place + 1 :])
    refused(".* is damaged")


def test_what_cannot_be_compared_is_refused(judge, files):
    folder, _ = files
    np.savez(folder / "other.npz", mu=np.zeros(7), sigma=np.eye(7))
    with pytest.raises(InputError, match=r"mu \(7,\) and sigma \(7, 7\): expected 6 numbers .* another network"):
        open_reference(folder / "other.npz", judge)
    np.savez(folder / "half.npz", mu=np.zeros(POOL))
    with pytest.raises(InputError, match="half.npz: has no array called sigma"):
        open_reference(folder / "half.npz", judge)
    np.savez(folder / "neither.npz", fid=np.zeros(POOL))
    with pytest.raises(InputError, match="neither.npz: holds no pictures"):
        open_reference(folder / "neither.npz", judge)
    np.savez(folder / "samples.npz", arr_0=pictures(1))
    with pytest.raises(InputError, match="holds one picture, which has no statistics"):
        run(judge, folder)


def test_notes_on_samples(judge, files):
    """Class after class, copies, few, and other weights: each has its sentence."""
    folder, _ = files
    images = np.concatenate([np.repeat(pictures(4, 3), 12, axis=0), pictures(4, 4)])
    np.savez(folder / "samples.npz", arr_0=images)
    report = run(judge._replace(weights={"published": False}), folder, split_size=12)[0]
    assert report["class_ordered"] is True
    assert report["inception_score"] < 0.8 * report["inception_score_shuffled"]
    notes = "\n".join(report["notes"])
    assert "the pictures are ordered by class: the Inception score in file order is 1." in notes
    assert "44 samples are exact copies of others" in notes
    assert "weights are not the published ones" in notes
    np.savez(folder / "samples.npz", arr_0=images[np.random.default_rng(0).permutation(len(images))])
    shuffled = run(judge, folder, split_size=12)[0]
    assert shuffled["class_ordered"] is False
    assert shuffled["fid"] == pytest.approx(report["fid"])
    np.savez(folder / "samples.npz", arr_0=images[:5])
    assert "fewer samples than the 6 features: FID means next to nothing" in run(judge, folder)[0]["notes"]


def test_padding_of_samples_never_reaches_a_figure(judge, files):
    """Nine samples fill one batch and an eighth of the next; batches of nine hold nothing but samples."""
    folder, _ = files
    np.savez(folder / "samples.npz", arr_0=pictures(9))
    padded, exact = (run(small_judge(1, batch), folder)[0] for batch in (8, 9))
    assert all(padded[name] == pytest.approx(exact[name], rel=1e-5) for name in REPORT)


def test_a_folder_as_a_reference(judge, files):
    folder, _ = files
    (folder / "pictures").mkdir()
    for number, image in enumerate(pictures(30, 1)):
        Image.fromarray(image).save(folder / "pictures" / f"{number:02}.png")
    from_npz, from_folder = (run(judge, folder, name)[0] for name in ("reference.npz", "pictures"))
    assert {name: from_folder[name] for name in REPORT} == {name: from_npz[name] for name in REPORT}
    (folder / "pictures" / "07.png").unlink()
    notes = run(judge, folder, "pictures")[0]["notes"]
    assert any(note.startswith("reference: 1 pictures seem to be missing, the first is number 7") for note in notes)


def test_inception_as_the_judge(tmp_path):
    """What the command takes: the whole network's shapes, its head, and what is known of its weights."""
    write_tensors(tmp_path / "drawn.pth", drawn_inception.tensors(), {})
    judge = inception_judge(tmp_path / "drawn.pth", batch=16)
    shaped = jax.eval_shape(
        judge.extractor._apply, judge.extractor._params, jax.ShapeDtypeStruct((16, 32, 32, 3), np.uint8)
    )
    assert (judge.head.shape, judge.spatial) == ((2048, 1008), 2023)
    assert (shaped.pool.shape, shaped.spatial.shape) == ((16, len(judge.head)), (16, judge.spatial))
    np.testing.assert_array_equal(judge.head, drawn_inception.tensors()["fc.weight"].T)
    assert (judge.weights["file"], judge.weights["published"]) == ("drawn.pth", False)
    assert judge.weights["sha256"] == judge.extractor.identity
