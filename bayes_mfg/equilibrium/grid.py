"""Time grids: the points at which a solution is reported, and the substeps between them."""

import dataclasses

import numpy as np

from bayes_mfg.errors import InputError

MOST_INTERVALS = 10**5
"""A grid is interpolated by a dense matrix, and solved in one piece; beyond this its size is a slip."""


@dataclasses.dataclass(frozen=True)
class TimeGrid:
    """Grid points on `[start, start + horizon]`, each interval cut into equal substeps.

    Parameters
    ----------
    horizon : length of the game in time units, positive.
    points : number of grid points `T`, at least 2.
    substeps : solver steps per interval between grid points, at least 1.
    start : time of the first point.
    nodes : the points themselves where they are not equally spaced; use `TimeGrid.from_times`.

    Raises
    ------
    InputError : when a number is outside its range or the times do not increase.
    """

    horizon: float
    points: int = 101
    substeps: int = 1
    start: float = 0.0
    nodes: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.horizon) and self.horizon > 0):
            raise InputError(f"TimeGrid: horizon is {self.horizon}; a positive number is needed.")
        if not np.isfinite(self.start):
            raise InputError(f"TimeGrid: start is {self.start}; a finite number is needed.")
        if int(self.points) != self.points or self.points < 2:
            raise InputError(f"TimeGrid: points is {self.points}; a whole number of at least 2 is needed.")
        if int(self.substeps) != self.substeps or self.substeps < 1:
            raise InputError(f"TimeGrid: substeps is {self.substeps}; a whole number of at least 1 is needed.")
        if (self.points - 1) * self.substeps > MOST_INTERVALS:
            raise InputError(
                f"TimeGrid: {self.points} points with {self.substeps} substeps are more than the {MOST_INTERVALS} intervals allowed."
            )
        object.__setattr__(self, "points", int(self.points))
        object.__setattr__(self, "substeps", int(self.substeps))
        if self.nodes is not None and len(self.nodes) != self.points:
            raise InputError(f"TimeGrid: nodes holds {len(self.nodes)} times; points is {self.points}.")
        if not np.all(np.diff(self.fine_times) > 0):
            raise InputError(f"TimeGrid: the times from {self.fine_times[0]:g} to {self.fine_times[-1]:g} do not increase.")

    @classmethod
    def from_times(cls, times: np.ndarray, substeps: int = 1) -> "TimeGrid":
        """Grid on given increasing times, equally spaced or not.

        Parameters
        ----------
        times : `(T,)`, strictly increasing.
        substeps : solver steps per interval.

        Raises
        ------
        InputError : when the times are not finite and strictly increasing.
        """
        nodes = np.asarray(times, dtype=float)
        if nodes.ndim != 1 or nodes.size < 2:
            raise InputError(f"TimeGrid: times has shape {nodes.shape}; at least two times in one dimension are needed.")
        bad = np.flatnonzero(~(np.diff(nodes) > 0))
        if bad.size or not np.all(np.isfinite(nodes)):
            at = int(bad[0]) if bad.size else int(np.flatnonzero(~np.isfinite(nodes))[0])
            raise InputError(
                f"TimeGrid: times do not increase at index {at}: {nodes[at]} then {nodes[min(at + 1, nodes.size - 1)]}."
            )
        horizon = float(nodes[-1] - nodes[0])
        return cls(horizon, nodes.size, substeps, float(nodes[0]), tuple(float(t) for t in nodes))

    @property
    def times(self) -> np.ndarray:
        """Grid points, `(T,)`."""
        if self.nodes is not None:
            return np.asarray(self.nodes)
        return self.start + np.linspace(0.0, self.horizon, self.points)

    @property
    def intervals(self) -> int:
        """Number of solver steps `M = (T - 1) * substeps`."""
        return (self.points - 1) * self.substeps

    @property
    def fine_times(self) -> np.ndarray:
        """All solver nodes, `(M + 1,)`; every `substeps`-th is a grid point."""
        return self.times if self.substeps == 1 else self.interpolation @ self.times

    @property
    def interpolation(self) -> np.ndarray:
        """Matrix `(M + 1, T)` that interpolates grid values linearly to the solver nodes."""
        fine = np.arange(self.intervals + 1) / self.substeps
        left = np.minimum(fine.astype(int), self.points - 2)
        weight = fine - left
        matrix = np.zeros((self.intervals + 1, self.points))
        rows = np.arange(self.intervals + 1)
        matrix[rows, left] = 1.0 - weight
        matrix[rows, left + 1] += weight
        return matrix
