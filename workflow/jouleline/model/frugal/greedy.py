"""Choose runs one after the other. Each is the best after those before it, whatever they will measure.

What a run teaches about a Gaussian does not depend on the measured value. So a whole batch can be chosen in advance.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jouleline.model.frugal.belief import Belief

MOST_TARGETS = 1000
"""The number of rows whose mean variance is to be lowered. They are drawn from the asked rows. More rows change no
choice and take time."""


@dataclass(frozen=True)
class Choice:
    """A row that was chosen.

    It holds the root mean variance of the targets (log energy) before and after a run of the row, and how little the
    row itself was known: the root of its variance.
    """

    row: int
    error_before: float
    error_after: float
    own_error: float


class Beliefs:
    """A belief, and what runs of its rows have changed: the variance of every row, and the covariance that rows still
    have.

    `seen` are the whitened covariances [M, R] of M runs with every row. K(R, R) - seen^T seen is the remaining
    covariance.
    """

    def __init__(self, belief: Belief, runs: np.ndarray):
        """`runs` are the rows (indices, with repeats) of runs that have been measured."""
        from scipy.linalg import cholesky, solve_triangular

        self.belief = belief
        self._rows = np.arange(len(belief))
        self._seen = np.empty((len(runs) + 64, len(belief)))
        self._count = len(runs)
        if len(runs):
            inner = belief.covariance(runs, runs) + belief.noise**2 * np.eye(len(runs))
            whitener = cholesky(inner, lower=True)
            self._seen[: len(runs)] = solve_triangular(
                whitener, belief.covariance(runs, self._rows), lower=True
            )
        self.variance = belief.variance() - (self.seen**2).sum(axis=0)

    @property
    def seen(self) -> np.ndarray:
        return self._seen[: self._count]

    def shared(self, here: np.ndarray, there: np.ndarray) -> np.ndarray:
        """The remaining covariance between some rows and others (indices), [here, there]."""
        return self.belief.covariance(here, there) - self.seen[:, here].T @ self.seen[:, there]

    def after_run(self, row: int) -> np.ndarray:
        """Add a run of a row. Returns its whitened covariance with every row, [R]."""
        with_all = self.shared(np.array([row]), self._rows)[0]
        whitened = with_all / np.sqrt(max(self.variance[row], 0) + self.belief.noise**2)
        if self._count == len(self._seen):
            self._seen = np.vstack([self._seen, np.empty_like(self._seen)])
        self._seen[self._count] = whitened
        self._count += 1
        self.variance = self.variance - whitened**2
        return whitened


def spanning(belief: Belief, runs: np.ndarray, rows: np.ndarray, count: int) -> list[int]:
    """D-optimal: `count` of the `rows` (indices). Each is the one that is least known after `runs` and those before it.

    No row is chosen twice.
    """
    beliefs = Beliefs(belief, runs)
    chosen: list[int] = []
    free = np.ones(len(rows), dtype=bool)
    for _ in range(min(count, len(rows))):
        unknown = np.where(free, np.round(beliefs.variance[rows], 9), -1.0)
        best = int(np.argmax(unknown))  # of equal rows the first, on every machine
        free[best] = False
        chosen.append(int(rows[best]))
        beliefs.after_run(chosen[-1])
    return chosen


def teaching(
    beliefs: Sequence[Belief],
    runs: np.ndarray,
    candidates: np.ndarray,
    targets: np.ndarray,
    joules: np.ndarray,
) -> Iterator[tuple[int, Choice]]:
    """(index, choice) of the candidates, the most useful per joule first: its run lowers the variance of the targets.

    `beliefs` are of independent parts of the log energy. One run tells all of them. `runs` are the rows of the runs
    measured so far. `candidates` is the row of each run that may be made. `targets` are rows, with repeats where some
    have more weight. `joules` [candidates] is the expected energy of a run of each.
    """
    if len(targets) > MOST_TARGETS:
        targets = np.random.default_rng(0).permutation(targets)[:MOST_TARGETS]
    parts = [_Part(Beliefs(belief, runs), candidates, targets) for belief in beliefs]
    free = np.ones(len(candidates), dtype=bool)
    error = _error(parts)
    while free.any():
        gain = sum(part.gain() for part in parts)
        best = int(np.argmax(np.where(free, gain / joules, -1.0)))
        row = int(candidates[best])
        own = max(sum(float(part.known.variance[row]) for part in parts), 0.0) ** 0.5
        free[best] = False
        for part in parts:
            part.after_run(row)
        before, error = error, _error(parts)
        yield best, Choice(row, before, error, own)


class _Part:
    """What is believed of one part of the log energy. `shared` [targets, candidates] is the remaining covariance of
    both."""

    def __init__(self, known: Beliefs, candidates: np.ndarray, targets: np.ndarray):
        self.known, self.candidates, self.targets = known, candidates, targets
        self.shared = known.shared(targets, candidates)

    def gain(self) -> np.ndarray:
        """How much a run of each candidate lowers the mean variance of the targets, [candidates]."""
        variance = np.maximum(self.known.variance[self.candidates], 0) + self.known.belief.noise**2
        return np.einsum("tc,tc->c", self.shared, self.shared) / (len(self.targets) * variance)

    def after_run(self, row: int) -> None:
        whitened = self.known.after_run(row)
        self.shared -= np.outer(whitened[self.targets], whitened[self.candidates])


def _error(parts: Sequence[_Part]) -> float:
    return max(sum(float(part.known.variance[part.targets].mean()) for part in parts), 0.0) ** 0.5
