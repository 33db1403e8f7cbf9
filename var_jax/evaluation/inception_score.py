"""The Inception score in file order and shuffled, from logits that arrive in blocks, in float64 on the host."""

from __future__ import annotations

import dataclasses

import numpy as np

SPLIT_SIZE = 5000  # pictures of one Inception score, as in the published evaluator
SHUFFLE_SEED = 2020  # as in torch-fidelity
_SIGNIFICANT = 5.0  # standard deviations; the correlation of neighbours in a shuffled file stays below
_ORDERED = 0.1  # correlation of neighbours above which a file counts as ordered by class


@dataclasses.dataclass(frozen=True)
class Score:
    """The Inception score of a set of pictures.

    Attributes:
      in_order, in_order_std: mean and standard deviation over splits of consecutive pictures, as the published
        evaluator computes them.
      shuffled, shuffled_std: the same after shuffling the pictures.
      splits: number of splits.
      neighbours: correlation of consecutive pictures' probabilities: near 0 in a shuffled file, near 1 if classes
        follow one another.
      class_ordered: whether that correlation is more than chance.
    """

    in_order: float
    in_order_std: float
    shuffled: float
    shuffled_std: float
    splits: int
    neighbours: float
    class_ordered: bool


class InceptionScore:
    """exp of the mean KL divergence between a picture's class probabilities and their mean (arXiv 1606.03498).

    Args:
      count: pictures that will arrive, in the order of the file.
      split_size: pictures per split; the last split has the remainder, as in the published evaluator.
    """

    def __init__(self, count: int, split_size: int = SPLIT_SIZE) -> None:
        places = np.empty(count, np.int64)
        places[np.random.RandomState(SHUFFLE_SEED).permutation(count)] = np.arange(count)
        self._splits = -(-count // split_size)
        self._split_of = np.stack([np.arange(count), places]) // split_size  # [2, N]: in order, and shuffled
        self._seen = 0
        self._last: np.ndarray | None = None
        self._self_products = self._neighbour_products = 0.0
        self._sums, self._entropies = np.zeros((2, self._splits, 1)), np.zeros((2, self._splits))  # 1 becomes C

    def add(self, logits_NxC: np.ndarray) -> None:
        """Adds the logits of the next pictures."""
        log_p = np.asarray(logits_NxC, np.float64)
        log_p = log_p - log_p.max(axis=1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        members = self._split_of[:, None, self._seen : self._seen + len(p)] == np.arange(self._splits)[:, None]
        self._sums = self._sums + members.astype(np.float64) @ p
        self._entropies += members @ np.sum(p * log_p, axis=1)
        self._self_products += np.sum(p * p)
        run = p if self._last is None else np.concatenate([self._last, p])
        self._neighbour_products += np.sum(run[1:] * run[:-1])
        self._last = p[-1:]
        self._seen += len(p)

    def score(self) -> Score:
        """The score of all pictures; call it after the last one was added."""
        counts = np.stack([np.bincount(row, minlength=self._splits) for row in self._split_of])
        mean = self._sums / counts[..., None]
        log_mean = np.log(mean, out=np.zeros_like(mean), where=mean > 0)
        scores = np.exp(self._entropies / counts - np.sum(mean * log_mean, axis=-1))
        neighbours = self._neighbours()
        # A shuffled file's correlation has a standard deviation of one over the root of the number of pictures.
        ordered = neighbours > max(_ORDERED, _SIGNIFICANT / np.sqrt(self._seen))
        (in_order, shuffled), (in_order_std, shuffled_std) = scores.mean(axis=1).tolist(), scores.std(axis=1).tolist()
        return Score(in_order, in_order_std, shuffled, shuffled_std, self._splits, neighbours, bool(ordered))

    def _neighbours(self) -> float:
        count, total = self._seen, self._sums[0].sum(axis=0)
        if count < 2:
            return 0.0
        alone, any_two = self._self_products / count, (total @ total - self._self_products) / (count * (count - 1))
        spread = alone - any_two
        # If all probabilities are alike, the pictures have no order.
        return float((self._neighbour_products / (count - 1) - any_two) / spread) if spread > 1e-12 else 0.0
