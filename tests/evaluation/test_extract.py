"""Features of many pictures: any number of devices, last batches, and a run that is broken off."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.small_judge import SPATIAL, network, pictures, small_judge
from var_jax.errors import InputError
from var_jax.evaluation.extract import Chunk, Extractor
from var_jax.evaluation.pictures import NpzPictures
from var_jax.parallel.mesh import make_mesh

COUNT = 21  # no multiple of anything


@pytest.fixture
def source(tmp_path):
    np.savez(tmp_path / "a.npz", arr_0=pictures(COUNT))
    return NpzPictures(tmp_path / "a.npz")


@pytest.fixture(scope="module")
def judges():
    return {devices: small_judge(devices) for devices in (1, 8)}


def joined(chunks) -> Chunk:
    return Chunk(*(np.concatenate(parts) for parts in zip(*chunks, strict=True)))


def test_one_and_eight_devices(source, judges):
    """A last batch of five is filled up to eight: rows of zeros, which leave no trace."""
    one, eight = (list(judges[n].extractor.chunks(source, chunk=16)) for n in (1, 8))
    assert [len(chunk.pool) for chunk in eight] == [16, 5]
    for a, b in zip(joined(one), joined(eight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    params = np.asarray(judges[1].extractor._params)
    direct = network(params, pictures(COUNT))
    np.testing.assert_allclose(joined(eight).pool, direct.pool, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(joined(eight).spatial, direct.spatial, rtol=1e-4, atol=1e-6)
    assert joined(eight).spatial.shape == (COUNT, SPATIAL)


def test_chunks_are_whole_batches(source, judges):
    chunks = list(judges[1].extractor.chunks(source, chunk=9))
    assert [len(chunk.pool) for chunk in chunks] == [16, 5]
    assert len(np.unique(joined(chunks).digests)) == COUNT


def test_a_batch_divides_over_the_devices():
    with pytest.raises(InputError, match="--batch 12 does not divide over 8 parts"):
        Extractor(np.zeros(1), "", make_mesh(), 12, network)


class Breaking:
    """A source that fails at a picture, and tells where it was asked to start."""

    def __init__(self, source, at=None):
        self.name, self.count, self._source, self._at, self.starts = source.name, source.count, source, at, []
        self.identity, self.notes = source.identity, source.notes

    def batches(self, start, size):
        self.starts.append(start)
        for number, batch in enumerate(self._source.batches(start, size)):
            if self._at is not None and start + number * size >= self._at:
                raise InputError("gone")
            yield batch


def test_a_broken_off_run_goes_on(source, judges, tmp_path):
    extractor, work = judges[1].extractor, tmp_path / "work"
    whole = joined(extractor.chunks(source, chunk=8))
    with pytest.raises(InputError, match="gone"):
        list(extractor.chunks(Breaking(source, 16), work, chunk=8))
    again, said = Breaking(source), []
    resumed = joined(extractor.chunks(again, work, said.append, chunk=8))
    assert again.starts == [16]
    assert said[-1] == f"{source.name}: features of {COUNT}/{COUNT} pictures"
    for a, b in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(a, b)
    third = Breaking(source)  # all there: no picture is read
    for a, b in zip(joined(extractor.chunks(third, work, chunk=8)), whole, strict=True):
        np.testing.assert_array_equal(a, b)
    assert third.starts == []
    # A file that a dying machine left half, or that is something else, is made again.
    file = work / "features-00001.npz"
    first = (work / "features-00000.npz").read_bytes()
    one = {name: array[:1] for name, array in np.load(file).items()}
    for content in (file.read_bytes()[:200], b"", first[30:], one):
        np.savez(file, **content) if isinstance(content, dict) else file.write_bytes(content)
        mended = Breaking(source)
        np.testing.assert_array_equal(joined(extractor.chunks(mended, work, chunk=8)).pool, whole.pool)
        assert mended.starts == [8]
    (work / "features_of.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="features_of.txt: the note on the features cannot be read as text"):
        list(extractor.chunks(source, work, chunk=8))


def test_features_of_other_pictures_are_not_taken(source, judges, tmp_path):
    extractor, work = judges[1].extractor, tmp_path / "work"
    list(extractor.chunks(source, work))
    np.savez(tmp_path / "b.npz", arr_0=pictures(COUNT, seed=1))
    with pytest.raises(InputError, match="work: holds features of other pictures, weights or settings; choose another"):
        list(extractor.chunks(NpzPictures(tmp_path / "b.npz"), work))
    other = Extractor(np.zeros((6, 6), np.float32), "other weights", make_mesh(), 8, network)
    with pytest.raises(InputError, match="holds features of other pictures, weights"):
        list(other.chunks(source, work))
