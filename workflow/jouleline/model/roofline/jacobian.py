"""Derivatives of a law's residuals, kept by slot and by groups of rows that share their columns.

A column of the fit (for example a device's deviation) moves a slot by a fixed share in all rows of one cell. So the
normal matrix of many columns is a sum over cells: each cell's small matrix of slots, spread over the columns. For three
devices this takes a seventh of the arithmetic of the full Jacobian, which is never built.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Block:
    """The residuals `part` of one cell: the slopes [B, S, m] by slot, and the share of each column in each slot, [S,
    P]."""

    part: slice
    slopes: np.ndarray
    loads: np.ndarray


@dataclass(frozen=True)
class Jacobian:
    """d residuals / d theta of B problems over M residuals."""

    blocks: list[Block]

    def some(self, problems: np.ndarray) -> "Jacobian":
        """The derivatives of the given problems (mask or indices)."""
        return Jacobian([Block(one.part, one.slopes[problems], one.loads) for one in self.blocks])

    def without(self, column: int) -> "Jacobian":
        """The derivatives with one column left out, for a parameter that is held fixed."""
        return Jacobian(
            [Block(one.part, one.slopes, np.delete(one.loads, column, axis=1)) for one in self.blocks]
        )

    def dense(self) -> np.ndarray:
        """The full array [B, P, M]."""
        first = self.blocks[0]
        whole = np.zeros((len(first.slopes), first.loads.shape[1], max(one.part.stop for one in self.blocks)))
        for one in self.blocks:
            whole[:, :, one.part] = one.loads.T @ one.slopes
        return whole

    def normal(self, weights: np.ndarray, residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(J^T W J [B, P, P], J^T W r [B, P]) for weights and residuals [B, M]."""
        size = self.blocks[0].loads.shape[1]
        matrix, gradient = np.zeros((len(residuals), size, size)), np.zeros((len(residuals), size))
        for one in self.blocks:
            weighted = one.slopes * weights[:, None, one.part]
            matrix += one.loads.T @ (weighted @ np.swapaxes(one.slopes, -1, -2)) @ one.loads
            gradient += (weighted @ residuals[:, one.part, None])[..., 0] @ one.loads
        return matrix, gradient


def cells(codes: list[np.ndarray]) -> tuple[np.ndarray, list[slice]]:
    """(the rows in an order that keeps equal codes together, the slice of each cell in it)."""
    joint = np.zeros(len(codes[0]), dtype=int)
    for code in codes:
        joint = np.unique(joint * (code.max(initial=0) + 1) + code, return_inverse=True)[1]
    order = np.argsort(joint, kind="stable")
    ends = np.cumsum(np.bincount(joint))
    return order, [slice(int(begin), int(end)) for begin, end in zip([0, *ends[:-1]], ends)]
