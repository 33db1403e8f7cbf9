"""All five figures of the published protocol (OpenAI's evaluator of guided diffusion, which VAR's paper uses).

Computes FID, sFID, Inception score, precision and recall of pictures against a reference, in one pass over each. Only
2048 numbers per picture are kept in memory; docs/evaluation.md states the cost.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from var_jax.errors import InputError
from var_jax.evaluation.extract import Extractor
from var_jax.evaluation.frechet import Moments, frechet_between
from var_jax.evaluation.inception_score import SPLIT_SIZE, InceptionScore, Score
from var_jax.evaluation.neighbours import NEIGHBOURS, precision_recall
from var_jax.evaluation.pictures import ARRAY, Pictures, open_pictures
from var_jax.evaluation.statistics import Statistics, read_statistics
from var_jax.formats.small_files import open_arrays
from var_jax.pretrained.inception import SPATIAL
from var_jax.pretrained.inception_file import read_inception

PUBLISHED_COUNT = 50_000  # pictures behind a published figure
Say = Callable[[str], None]


class Judge(NamedTuple):
    """A network that judges pictures.

    Attributes:
      extractor: computes their features.
      head: [F, C], which turns pooled features into logits; no bias, as in the published evaluator.
      spatial: number of spatial features per picture.
      weights: description of the weights, for the report.
    """

    extractor: Extractor
    head: np.ndarray
    spatial: int
    weights: dict[str, Any]


class Reference(NamedTuple):
    """The reference that samples are compared with.

    Attributes:
      pool, spatial: stored statistics; if `pool` is None, they are computed from `pictures`.
      pictures: pictures for precision and recall, or None.
    """

    pool: Statistics | None
    spatial: Statistics | None
    pictures: Pictures | None


class Judged(NamedTuple):
    """The results of one pass over pictures.

    Attributes:
      pool_NxF: pooled features, float32.
      pool, spatial: statistics of both kinds of features.
      score: the Inception score, if it was computed.
      copies: number of pictures that equal an earlier one.
    """

    pool_NxF: np.ndarray
    pool: Statistics
    spatial: Statistics
    score: Score | None
    copies: int


def inception_judge(path: str | os.PathLike[str] | None = None, batch: int = 64) -> Judge:
    """The 2015 Inception network on all devices, from a file or the cache folder.

    Raises:
      InputError: if the weights are missing, or the batch does not divide over the devices.
    """
    weights = read_inception(path)
    extractor = Extractor(weights.params, weights.sha256, batch=batch)
    described = {"file": Path(weights.file).name, "sha256": weights.sha256, "published": weights.published}
    return Judge(extractor, weights.params["fc"]["kernel"], SPATIAL, described)


def open_reference(path: str | os.PathLike[str], judge: Judge) -> Reference:
    """Opens a reference: an `.npz` of statistics, pictures or both, or a folder of pictures.

    Raises:
      InputError: if the path is none of these.
    """
    if not os.path.isfile(path):
        return Reference(None, None, open_pictures(path))
    pool, spatial = read_statistics(path, len(judge.head), judge.spatial)
    with open_arrays(path, "a reference") as archive:
        pictures = open_pictures(path) if ARRAY in archive.names or pool is None else None
    return Reference(pool, spatial, pictures)


def judge_pictures(
    pictures: Pictures,
    judge: Judge,
    split_size: int | None = None,
    work: Path | None = None,
    say: Say = lambda text: None,
) -> Judged:
    """Judges all pictures in one pass; computes the Inception score if `split_size` is given.

    Raises:
      InputError: if the pictures cannot be read, or are fewer than two.
    """
    if pictures.count < 2:
        raise InputError(f"{pictures.name}: holds one picture, which has no statistics; give two or more")
    pool_NxF = np.empty((pictures.count, len(judge.head)), np.float32)
    pool, spatial, at = Moments(), Moments(), 0
    score = InceptionScore(pictures.count, split_size) if split_size else None
    digests = []
    for chunk in judge.extractor.chunks(pictures, work, say):
        pool_NxF[at : at + len(chunk.pool)] = chunk.pool
        at += len(chunk.pool)
        pool.add(chunk.pool)
        spatial.add(chunk.spatial)
        if score:
            score.add(chunk.pool @ judge.head)
        digests.append(chunk.digests)
    statistics = (Statistics(*moments.mean_and_covariance()) for moments in (pool, spatial))
    copies = pictures.count - len(np.unique(np.concatenate(digests)))
    return Judged(pool_NxF, *statistics, score.score() if score else None, copies)


def figures(
    samples: Judged, reference: Reference | None, judge: Judge, half: bool, work: Path | None, say: Say
) -> dict[str, float | None]:
    """fid, sfid, precision and recall of samples; None for a figure that the reference does not allow."""
    found: dict[str, float | None] = dict.fromkeys(("fid", "sfid", "precision", "recall"))
    if reference is None:
        return found
    pool, spatial, judged = reference.pool, reference.spatial, None
    if reference.pictures is not None:
        judged = judge_pictures(reference.pictures, judge, None, work, say)
        if pool is None:
            pool, spatial = judged.pool, judged.spatial
    say("Frechet distances")
    found["fid"] = frechet_between(samples.pool, pool)
    found["sfid"] = None if spatial is None else frechet_between(samples.spatial, spatial)
    if judged is not None and min(len(samples.pool_NxF), len(judged.pool_NxF)) > NEIGHBOURS:
        say("precision and recall")
        pair = precision_recall(samples.pool_NxF, judged.pool_NxF, judge.extractor.mesh, half)
        found["precision"], found["recall"] = pair
    return found


def evaluate(
    samples: Pictures,
    reference: Reference | None,
    judge: Judge,
    half: bool = False,
    split_size: int = SPLIT_SIZE,
    work: str | os.PathLike[str] | None = None,
    say: Say = lambda text: None,
) -> tuple[dict[str, Any], Judged]:
    """Judges samples; returns the report and the results of the pass over them.

    Args:
      reference: the reference to compare with; without one, only the Inception score is computed.
      half: compute distances of precision and recall in float16, as the published evaluator does.
      split_size: pictures of one Inception score.
      work: a folder that keeps features, so that the same call resumes after an interruption.

    Returns:
      fid, sfid, inception_score (in file order), inception_score_shuffled, their _std over splits, precision, recall
      (None for a figure that the reference does not allow), counts, settings, weights, and `notes`: sentences on
      everything that makes these figures differ from published ones.
    """
    folder = Path(work) if work else None
    judged = judge_pictures(samples, judge, split_size, folder and folder / "samples", say)
    found = figures(judged, reference, judge, half, folder and folder / "reference", say)
    score, pictures = judged.score, reference.pictures if reference else None
    report = {
        "fid": found["fid"],
        "sfid": found["sfid"],
        "inception_score": score.in_order,
        "inception_score_std": score.in_order_std,
        "inception_score_shuffled": score.shuffled,
        "inception_score_shuffled_std": score.shuffled_std,
        "precision": found["precision"],
        "recall": found["recall"],
        "samples": samples.count,
        "reference_pictures": pictures.count if pictures else 0,
        "split_size": split_size,
        "class_ordered": score.class_ordered,
        "neighbour_correlation": score.neighbours,
        "distances": "float16" if half else "float32",
        "weights": judge.weights,
    }
    return report | {"notes": _notes(samples, reference, judged, judge.weights)}, judged


def _notes(samples: Pictures, reference: Reference | None, judged: Judged, weights: dict[str, Any]) -> list[str]:
    notes, score = samples.notes(), judged.score
    if score.class_ordered:
        notes.append(
            f"the pictures are ordered by class: the Inception score in file order is {score.in_order:.2f}, shuffled "
            f"{score.shuffled:.2f}; where they differ, papers print the second"
        )
    if samples.count != PUBLISHED_COUNT:
        notes.append(f"{samples.count} samples, published figures use {PUBLISHED_COUNT}; FID falls with the number")
    if samples.count <= len(judged.pool.mean):
        notes.append(f"fewer samples than the {len(judged.pool.mean)} features: FID means next to nothing")
    if judged.copies:
        notes.append(f"{judged.copies} samples are exact copies of others")
    if weights.get("published") is False:
        notes.append("the Inception weights are not the published ones: no figure compares with any other")
    return notes + _notes_on(reference)


def _notes_on(reference: Reference | None) -> list[str]:
    if reference is None:
        return ["no reference: the Inception score alone"]
    notes = [] if reference.pictures is None else [f"reference: {note}" for note in reference.pictures.notes()]
    if reference.pool is not None and reference.spatial is None:
        notes.append("no sFID: the reference has no mu_s and sigma_s")
    if reference.pictures is None:
        notes.append("no precision and recall: the reference has statistics only, no pictures")
    elif reference.pictures.count <= NEIGHBOURS:
        notes.append(f"no precision and recall: the reference has {reference.pictures.count} pictures")
    return notes
