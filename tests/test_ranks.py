"""Protects how many directions of gamma(t) the populations of the linear-quadratic game see, by the benchmark's own functions."""

import jax.numpy as jnp
import numpy as np
import pytest

from bayes_mfg.games import LinearQuadratic
from benchmarks.ranks import counted, slopes, wave


@pytest.mark.slow
@pytest.mark.parametrize(("states", "tenth", "hundredth"), [(3, 11, 33), (10, 1, 5)])
def test_few_directions_of_gamma_leave_a_trace(states, tenth, hundredth):
    """In the explicit scheme, gamma a wave of 0.3 around 1: singular values above 10 % and 1 % of the largest, of a hundred."""
    shares = np.arange(1.0, states + 1.0) / (states * (states + 1) / 2)
    found = counted(np.asarray(slopes(LinearQuadratic(states))(jnp.asarray(wave(0.3)), shares)))
    assert (found["above 10 %"], found["above 1 %"]) == (tenth, hundredth)
    assert counted(np.full((2, 100), np.nan))["largest"] is None
