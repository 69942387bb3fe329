"""Protects the example scripts: each runs on small data and ends with its figure."""

import numpy as np
import pytest

from bayes_mfg.examples import announced_closure


@pytest.mark.long
@pytest.mark.slow
def test_the_announced_closure(tmp_path) -> None:
    """The game anticipates, a surprise and the forward dynamics do not; and everybody reacts."""
    results = announced_closure.closures(days=2, points=11, draws=20)
    before = announced_closure.CLOSURE[1]
    for name, found in results.items():
        moved = np.abs(found.difference["mu"]).sum("state").median("draw").mean("trajectory")
        early = float(moved.where(moved["time"] < before, drop=True).max())
        assert (early > 0.01) == (name == "game, announced"), (name, early)
        assert early > 0.01 or early < 1e-9, (name, early)
        assert float(moved.max()) > 0.05
        into = found.changed["flow"].sel(destination="Centre")
        assert float(into.where((into["time"] > before - 1e-9) & (into["time"] < 0.79), drop=True).max()) == 0.0
    first, *others = results
    path = results[first].plot(tmp_path / "figure.svg", beside={name: results[name] for name in others}, name=first)
    assert path.read_text().count("line s2") >= 6
