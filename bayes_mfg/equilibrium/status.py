"""How a solve ended, in a number for arrays and a sentence for people."""

import enum

import equinox as eqx
import numpy as np
from jax import Array


class Code(enum.IntEnum):
    """Ways in which a solve can end."""

    CONVERGED = 0
    MAX_STEPS = 1
    STALLED = 2
    NOT_FINITE = 3
    OFF_SIMPLEX = 4
    DIVERGED = 5
    NEGATIVE_RATES = 6
    OUT_OF_RANGE = 7
    NO_DISTRIBUTION = 8


_SENTENCES = {
    Code.CONVERGED: "The equilibrium was found: the residual is below the tolerance.",
    Code.MAX_STEPS: "The equilibrium was not found: the iterations ran out before the residual fell below the tolerance.",
    Code.STALLED: "The equilibrium was not found: no step along the Newton direction lowered the residual.",
    Code.OFF_SIMPLEX: "The equilibrium was not found: the equations hold, but the population has left the simplex (more time steps are needed).",
    Code.DIVERGED: "The equilibrium was not found: the iterations moved away from it.",
    Code.NEGATIVE_RATES: "No equilibrium: some of the game's rates are negative at the solution.",
    Code.OUT_OF_RANGE: "No equilibrium: a parameter is outside its range at the solution.",
    Code.NO_DISTRIBUTION: "No equilibrium: the initial population is no distribution (shares are negative or do not sum to one).",
    Code.NOT_FINITE: "The equilibrium was not found: the game's costs or rates are not finite at the given parameters.",
}


class Status(eqx.Module):
    """Status of one solve, or of a batch of solves under `vmap`.

    Attributes
    ----------
    code : integer array of `Code` values, `()` or the batch shape.
    """

    code: Array

    @property
    def converged(self) -> Array:
        """Whether the residual fell below the tolerance, boolean with the shape of `code`."""
        return self.code == Code.CONVERGED

    @property
    def message(self) -> str:
        """A sentence; for a batch, how many solves ended in each way."""
        codes = np.asarray(self.code)
        if codes.ndim == 0:
            return _SENTENCES[Code(int(codes))]
        counts = [(Code(int(c)), int(n)) for c, n in zip(*np.unique(codes, return_counts=True), strict=True)]
        return " ".join(f"{n} of {codes.size}: {_SENTENCES[code]}" for code, n in counts)
