"""Protects what `identifiability` says at its edges - fits of other models, known starts, heavy tails, warnings over the prior - on linear models."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from direct import Direct, seen
from linear_model import SIZE, TIMES, Linear, population

import bayes_mfg as bm
from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.inference import FitError, identifiability, identifiability_over_prior, identifiability_page
from bayes_mfg.inference.contraction import Contraction, contraction
from bayes_mfg.inference.identifiability import factors
from bayes_mfg.inference.identifiability_prior import OverPrior
from bayes_mfg.inference.linearised import Widths, prior_scale
from bayes_mfg.inference.report_stats import quantities
from bayes_mfg.inference.report_svg import Line
from bayes_mfg.models import Started, Trajectories, UnknownShares
from bayes_mfg.paths import Constant, GaussianProcess, Pooled

SHARP = bm.models.Gaussian(scale=1e-3)


def test_a_fit_under_another_prior_is_refused():
    """Its coordinates have the same names and are other values: 2.98 of a prior with sd 3 would be read as 0.50 where the sd is 0.5."""
    wide, narrow = (Linear(population(a=3.0), paths={"a": Constant(level_scale=sd)}, observation=SHARP) for sd in (3.0, 0.5))
    fit = bm.inference.fit(wide, method="point", starts=1, prior_samples=0)
    assert float(identifiability(wide, fit, checked=0).values["a"]) == pytest.approx(float(fit.tree["posterior"]["a"][0, 0, 0]))
    for ask in (identifiability, lambda model, at: bm.inference.profile(model, "a", at=at)):
        with pytest.raises(InputError, match=r"^(identifiability|profile): at is a fit of another model, whose paths differ"):
            ask(narrow, fit)
    other = Linear(population(a=3.0), paths={"a": Constant(level_scale=3.0)}, observation=bm.models.Gaussian(scale=1e-2))
    with pytest.raises(InputError, match="whose observation models differ"):
        identifiability(other, fit)


class Still(Linear):
    """Two trajectories that stay where they start."""

    def trajectories(self, latents, data=None, key=None):
        once = super().trajectories(latents, data, key)
        mu = jnp.broadcast_to(latents["mu0"][:, None], (2, len(TIMES), 2))
        return Trajectories(once.parameters, mu, jnp.zeros_like(mu), jnp.zeros(2, int), jnp.zeros(2), jnp.zeros((2, 3), int))


def test_starts_that_an_experimenter_set_are_known_and_spoil_no_verdict():
    data = Population(TIMES, proportions=np.full((2, len(TIMES), 2), 0.5))
    rows, told = np.array([[np.nan, np.nan], [0.8, 0.2]]), []
    for some, known in ((rows, 2), (np.full((2, 2), np.nan), 0)):
        result = identifiability(Still(data, observation=SHARP, initial=Started(UnknownShares(), some)), checked=2)
        verdict = result.verdicts["mu0"]
        assert verdict.verdict == "identified" and verdict.counted.sum() == 4 - known
        assert ("2 of 4 entries are known and not counted" in verdict.reason) == bool(known)
        assert np.isfinite(result.table().loc["mu0", "curved"])
        told.append([w for w in result.warnings if "The prior of mu0 is far from normal" in w])
    assert all("its sd is 1.5" in w for some in told for w in some) and all(
        told
    )  # known entries, which have none, do not dilute it


@pytest.mark.parametrize(
    ("prior", "sd", "told"),
    [(dist.Laplace(0.0, 1.0), np.sqrt(2.0), False), (dist.Cauchy(0.0, 1.0), np.tan(0.3413447 * np.pi), True)],
)
def test_priors_without_curvature_or_variance_have_a_width(prior, sd, told):
    """A Laplace density is straight wherever it is smooth; a Cauchy has no variance, and its central 68 % are 2 x 1.84 wide. 10,000 draws: 5 sds."""
    model = Linear(population(), paths={"a": Constant(prior), "b": Constant()})
    np.testing.assert_allclose(np.diag(prior_scale(model)), [sd, 1.0], rtol=0.1)
    result = identifiability(model, checked=0)
    assert any("The prior of a has tails so heavy that its draws agree on no sd" in w for w in result.warnings) == told
    assert not any("far from normal" in w for w in result.warnings)
    slopes = SIZE * np.stack([np.ones_like(TIMES), TIMES], axis=1)
    information = 2 * slopes.T @ slopes / 0.02**2
    by_hand = np.sqrt(np.linalg.inv(information + np.diag([sd**-2.0, 1.0]))[0, 0])
    assert float(result.sd["a"]) == pytest.approx(by_hand, rel=0.03)


def test_a_point_without_a_width_is_no_reason_for_trust():
    """Of two points one has no slopes of the second entry; the third has none at the centre, where nothing can be held against it."""

    def at(*posterior):
        x = np.array(posterior)
        return Widths(x, x, x, {})

    found = factors(at(0.25, 0.25, np.nan), [at(0.25, 0.25, 0.25), at(0.25, np.nan, 0.25)], 2)
    np.testing.assert_array_equal(found, [1.0, np.inf, np.nan])


class Watching(Linear):
    """Its path `a` counts as one of the observed population, and so as one of each trajectory's own."""

    def trajectories(self, latents, data=None, key=None):
        found = super().trajectories(latents, data, key)
        return found._replace(parameters={**found.parameters, "a": found.parameters["a"][None]})


def test_observed_numbers_that_enter_are_told(monkeypatch):
    paths = {"a": GaussianProcess(length_scale=0.5)}
    model = Linear(population(), paths=paths)
    assert not any("observed population" in w for w in identifiability(model, checked=0).warnings)
    monkeypatch.setattr(type(model.bound["a"]), "needs_observed", property(lambda self: True))
    told = identifiability(Watching(population(), paths=paths), checked=0).warnings
    assert any(w.startswith("The path of a is one of the observed population, held as it was observed") for w in told)


def test_figures_follow_the_axis_of_time(monkeypatch):
    """As many trajectories as times, of a path that is pooled: the axis of time is the second. Constants, however many, have none."""
    model = Direct(seen(np.zeros((5, 5)), 0.01, 0), Pooled(GaussianProcess(length_scale=0.5)), 0.01)
    result = identifiability(model, checked=0)
    verdict = result.verdicts["x"]
    assert verdict.ratio.shape == (5, len(result.times)) == (5, 5) and verdict.axis == 1
    lines = []
    monkeypatch.setattr(identifiability_page, "Line", lambda x, y, style: lines.append((y, style)) or Line(x, y, style))

    def drawn(**changes):
        lines.clear()
        figures = identifiability_page._widths(
            dataclasses.replace(result, verdicts={"x": dataclasses.replace(verdict, **changes)})
        )
        return len(figures), [list(y) for y, style in lines if style == "median"]

    each = np.linspace(0.1, 0.9, 5)
    assert drawn(ratio=np.repeat(each[:, None], 5, axis=1)) == (1, [[x] * 5 for x in each])
    assert drawn(ratio=each, axis=None) == (0, [])


# Over the prior.


def _changed(result, **changes):
    verdicts = {"a": dataclasses.replace(result.verdicts["a"], **changes), "b": result.verdicts["b"]}
    return dataclasses.replace(result, verdicts=verdicts)


def test_partners_are_counted_one_by_one_and_where_they_confound():
    one = identifiability(Linear(population()), checked=0)
    confounded = [_changed(one, cause="confounded", partners=p) for p in (("c", "d"), ("d", "c"), ("e",), ("e",), ("d",))]
    null = [_changed(one, cause="null", partners=("f",))] * 5
    over = OverPrior((*confounded, *null), 0)
    assert over.table().loc["a", "partners"] == "d"
    assert "where it is confounded, mostly with d." in " ".join(over.sentences)
    assert OverPrior(tuple(null), 0).table().loc["a", "partners"] == ""


def test_warnings_and_directions_without_a_trace_are_counted_over_the_prior(tmp_path):
    """Of a uniform prior the sd by slopes differs from draw to draw: one warning. What nothing sees is null at every draw. Nothing was checked."""
    paths = {"a": Constant(dist.Uniform(0.0, 1.0)), "b": Constant(), "c": Constant()}  # c does not enter
    over = identifiability_over_prior(Linear(population(), paths=paths), 6, seed=1)
    said = over.sentences
    assert [s for s in said if "The prior of a is far from normal" in s and "(at " in s and "figures of one of them)" in s]
    assert (
        len([s for s in said if "far from normal" in s]) <= 2
    )  # of sds that are too large widths are raised, which the one tells
    assert "C alone: nothing that is observed changes (at 6 of 6 draws)." in said
    assert len([s for s in said if "checked" in s]) == 1 and said[-1].startswith(
        "Whether the linearisation can be trusted was checked at none"
    )
    page = over.report(tmp_path / "a.html").read_text()
    assert "Over the prior" in page and "nothing that is observed changes (at 6 of 6 draws)" in page and "Spectrum" not in page
    both = over.found[0].report(tmp_path / "b.html", over).read_text()
    assert "Over the prior" in both and "Spectrum" in both


def test_the_shell_asks_over_the_prior_though_its_median_has_no_equilibrium(tmp_path, monkeypatch, capsys):
    import argparse

    from bayes_mfg.commands import identify
    from bayes_mfg.config import calibration

    config = types.SimpleNamespace(seed=1)
    monkeypatch.setattr(identify, "glance", lambda path: None)
    monkeypatch.setattr(calibration, "load_config", lambda path, data: config)
    monkeypatch.setattr(calibration, "build_model", lambda config: Linear(population(), limit=-0.2))
    options = {"config": "a.toml", "data": None, "out": str(tmp_path / "page.html")}
    identify.run(argparse.Namespace(**options, prior_draws=8), "")
    said = capsys.readouterr().out
    assert said.startswith("No equilibrium was found at the prior median") and "left out: no equilibrium" in said
    assert "Over the prior" in (tmp_path / "page.html").read_text()
    with pytest.raises(FitError, match="No equilibrium was found at the prior median"):
        identify.run(argparse.Namespace(**options, prior_draws=None), "")


# After a fit.


def test_contraction_has_every_trajectory():
    """Twenty of them, of which a report shows twelve."""
    rng = np.random.default_rng(0)
    dims = ("chain", "draw", "trajectory")
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"x": (dims, 0.1 * rng.standard_normal((1, 50, 20)))}),
            "prior": xr.Dataset({"x": (dims, rng.standard_normal((1, 50, 20)))}),
        }
    )
    assert len(quantities(tree)[0].panels) == 12
    found = contraction(bm.inference.Fit(tree))
    assert isinstance(found, Contraction) and len(found.verdicts) == 20 == len(found.sentences)
