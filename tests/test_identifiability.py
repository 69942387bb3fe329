"""Protects `identifiability`: derivatives against differences, information against its definition, and verdicts against what theory knows."""

import functools

import identified
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import bayes_mfg as bm
from bayes_mfg.data import Population
from bayes_mfg.equilibrium import TimeGrid, solve
from bayes_mfg.errors import InputError
from bayes_mfg.games import BikeShare, LinearQuadratic, Parameter
from bayes_mfg.inference import identifiability, sensitivity
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.inference.identifiability_prior import VERDICTS
from bayes_mfg.inference.information import information, natural
from bayes_mfg.inference.linearised import blocks, prior_scale, rows, score_root
from bayes_mfg.inference.sensitivity import sensitivities
from bayes_mfg.models import Binomial, Calibration, Dirichlet, Seeded
from bayes_mfg.paths import Constant, GaussianProcess, Pooled


@functools.cache
def found(name, **options):
    return identifiability(getattr(identified, name)(), checked=0, **options)


# Derivatives and information.


@functools.cache
def partly_seen():
    """Two epidemics from unknown seeds with a rate of their own each; counts of one state with unequal totals, some of them not seen."""
    rng = np.random.default_rng(0)
    totals = rng.integers(50, 500, (2, 6))
    counts = np.stack([totals - totals // 5, totals // 5, 0 * totals], axis=-1)
    mask = rng.random(counts.shape) < 0.7
    data = Population(np.linspace(0.0, 10.0, 6), counts=counts, totals=totals, states=["S", "I", "R"], mask=mask)
    paths = {"beta": Pooled(GaussianProcess(length_scale=4.0)), "recovery": identified.about(0.2, 0.3)}
    return Calibration(
        identified.SIR(), data, paths, Binomial(states=["I"]), initial=Seeded(share=dist.LogUniform(1e-3, 0.3)), substeps=2
    )


@functools.cache
def own_noise():
    return identified.lq({"gamma": identified.about(1.5)}, initial=bm.models.UnknownShares(), observation=Dirichlet())


@pytest.mark.parametrize("make", [own_noise, pytest.param(partly_seen, marks=pytest.mark.slow)])
def test_sensitivities_and_information_are_those_of_central_differences(make):
    """Of the observation's distributions, of paths and of starts, by every coordinate; and `A' A` is the sum over all cells that are seen."""
    model = make()
    space = coordinates(model)

    def implied(x):
        sites = space.constrain(x)
        result = model.trajectories(space.latents(sites, model.data))
        own = {n: sites[n] for n in model.observation.priors}
        seen = natural(model.likelihood({"own": own}, result.mu, model.data))
        paths = {
            n: jnp.ravel(p if not model.bound[n].is_constant or model.varies_by_trajectory(n) else p[0])
            for n, p in result.parameters.items()
        }
        starts = [model.population.states.index(s) for s in model.initial.unknown_states(model.population)]
        return seen, {
            **paths,
            **{n: jnp.ravel(v) for n, v in own.items()},
            "mu0": jnp.ravel(result.mu[:, 0][:, jnp.array(starts)]),
        }

    function = jax.jit(implied)
    rng = np.random.default_rng(1)
    x = space.prior_median() + 0.2 * rng.standard_normal(space.size)
    point = jax.tree.map(np.asarray, sensitivities(model)(jnp.asarray(x), model.data))
    assert bool(point.found)
    ends = [[function(jnp.asarray(x + sign * 1e-5 * e)) for sign in (1, -1)] for e in np.eye(space.size)]
    slopes = {n: np.stack([(np.asarray(u[1][n]) - np.asarray(d[1][n])) / 2e-5 for u, d in ends], axis=-1) for n in ends[0][0][1]}
    for name, unknown in rows(model, point).items():
        np.testing.assert_allclose(unknown.slopes, slopes[name], rtol=1e-5, atol=1e-6 * np.abs(slopes[name]).max())
    moved = np.stack([(np.asarray(u[0]) - np.asarray(d[0])) / 2e-5 for u, d in ends], axis=-1)
    own = {n.removeprefix("own/"): v for n, v in point.implied.items() if n.startswith("own/")}
    weights = information(model.likelihood({"own": own}, point.implied["mu"], model.data))
    mask = np.asarray(model.data.record.mask)
    assert not mask.all() or make is own_noise
    brute = np.einsum("nai,nab,nbj->ij", moved[mask], weights[mask], moved[mask])
    root = score_root(model, point)
    np.testing.assert_allclose(root.T @ root, brute, rtol=1e-4, atol=1e-5 * np.abs(brute).max())


def test_the_priors_scale_is_exact_where_it_is_normal_and_of_draws_elsewhere():
    """Noise and gamma are normal in logarithms; a uniform distribution over three states is not."""
    model = own_noise()
    scale, parts = prior_scale(model), blocks(model)
    assert scale[parts["gamma"][0], parts["gamma"][0]] == pytest.approx(1.0, rel=1e-12)
    assert scale[parts["noise"][0], parts["noise"][0]] == pytest.approx(2.0, rel=1e-12)
    starts = scale[np.ix_(parts["mu0"], parts["mu0"])]
    assert not (starts - np.diag(np.diag(starts))).any()  # sticks are independent
    # log(X / (1 - X)) of a Beta(a, b) has variance psi'(a) + psi'(b): psi'(1) + psi'(2) and twice psi'(1). 10,000 draws; 5 standard errors.
    one, two = np.pi**2 / 6, np.pi**2 / 6 - 1
    expected = np.sqrt(np.tile([one + two, 2 * one], 2))
    np.testing.assert_allclose(np.diag(starts), expected, rtol=5 * 1.1 / np.sqrt(10_000))


def test_widths_are_exact_in_a_linear_normal_model():
    """Two constants that a line of shares shows through normal noise: everything is known in closed form, and nothing is curved."""
    from linear_model import Linear, population, posterior

    model = Linear(population())
    result = identifiability(model, checked=3)
    _, covariance = posterior(population())
    np.testing.assert_allclose(result.covariance, covariance, rtol=1e-8)
    np.testing.assert_allclose([float(result.sd["a"]), float(result.sd["b"])], np.sqrt(np.diag(covariance)), rtol=1e-8)
    alone = [float(result.verdicts[n].alone) for n in ("a", "b")]
    np.testing.assert_allclose(alone, 1.0 / np.sqrt(np.diag(np.linalg.inv(covariance))), rtol=1e-8)
    squares = np.linalg.eigvalsh(np.linalg.inv(covariance) - np.eye(2))[::-1]
    np.testing.assert_allclose(result.singular_values**2, squares, rtol=1e-8)
    assert result.effective == pytest.approx(np.sum(squares / (1 + squares)))
    assert all(np.allclose(v.curved, 1.0) for v in result.verdicts.values()) and result.warnings == ()


# What is known of games.


def test_a_common_factor_of_all_costs_is_null_to_rounding():
    result = found("lq_costs")
    assert result.singular_values[-1] <= 1e-12 * result.singular_values[0]
    direction = result.directions[0]
    assert direction.kind == "invariant" and direction.singular_value <= 1e-12 * result.singular_values[0]
    relative = [float(direction.change[n] / result.values[n]) for n in identified.COSTS]
    np.testing.assert_allclose(relative, relative[0], rtol=1e-6)
    assert direction.sentence == "All costs times a common factor: nothing that is observed changes, as the game declares."
    assert "All costs times a common factor" in result.sentences[1]


def test_a_combination_of_declared_changes_is_called_invariant():
    result = found("lq_combined")
    free = [d for d in result.directions if d.kind == "invariant"]
    assert len(free) == 1 and not [d for d in result.directions if d.kind == "null"]
    assert "All costs times a common factor and only control_weight times gamma counts" in free[0].sentence
    relative = {n: float(free[0].change[n] / result.values[n]) for n in ("terminal_slope", "congestion", "control_weight")}
    np.testing.assert_allclose(list(relative.values()), relative["congestion"], rtol=1e-6)


def test_entries_that_do_not_enter_are_told_and_not_counted():
    """The diagonal of the base rates; with it, no data could ever identify them."""
    starts = np.array([[0.2, 0.8], [0.9, 0.1]])
    result = identifiability(
        identified.calibration(BikeShare(2), {"base_rate": identified.about(1.0)}, starts, points=5), checked=0
    )
    verdict = result.verdicts["base_rate"]
    assert verdict.verdict == "identified" and "2 of 4 entries do not enter and are not counted" in verdict.reason
    np.testing.assert_array_equal(verdict.counted, ~np.eye(2, dtype=bool))
    np.testing.assert_allclose(np.diag(verdict.ratio), 1.0)


class Taxed(LinearQuadratic):
    """A cost at every moment that is the same in every state: a parameter that no game should have."""

    @property
    def optional(self):
        return (*super().optional, Parameter("tax"))

    tax: float = 0.5

    def running_cost(self, t, control, mu, params):
        return super().running_cost(t, control, mu, params) + self.constant(params, "tax")


@pytest.mark.slow
def test_a_cost_that_is_the_same_in_every_state_is_null_to_rounding_though_nobody_declares_it():
    paths = {"gamma": identified.about(1.5), "tax": GaussianProcess(length_scale=1.0)}
    result = identifiability(identified.calibration(Taxed(), paths, identified.STARTS), checked=0)
    taxes = [d for d in result.directions if d.shares["tax"] > 0.5]
    assert len(taxes) == len(result.directions) - 1
    assert max(d.singular_value for d in taxes) <= 1e-12 * result.singular_values[0]
    verdict = result.verdicts["tax"]
    assert (verdict.verdict, verdict.cause) == ("prior-driven", "null")
    np.testing.assert_allclose(verdict.ratio, 1.0, rtol=1e-12)
    assert result.verdicts["gamma"].verdict == "identified"


# unknown, verdict, cause, partners.
TABLE = [
    # The only cost that is unknown, seen through rates of motion at noise of a hundredth: nothing to confound it with.
    ("lq_gamma", "gamma", "identified", "", ()),
    # Four costs, free scale: equal prior sds leave each at least 1/2 of its own; slope and gamma both count, so neither is driven by the prior alone.
    ("lq_costs", "gamma", "weak", "invariant", ("terminal_slope", "congestion", "terminal_congestion")),
    ("lq_costs", "terminal_slope", "weak", "invariant", ("gamma", "congestion", "terminal_congestion")),
    # Crowding costs at most 0.1 x 2 in a game whose ends differ by 10, and shares are seen with sds of 0.15.
    ("lq_crowding", "congestion", "prior-driven", "little seen", ()),
    # 66 shares around the truth measure their own scatter to 1 / sqrt(2 x 66) = 9 %, whatever the truth.
    ("lq_noise", "scale", "identified", "", ()),
    # Epidemics of known start that run their course among 2,000: growth gives the difference of the rates, the end their ratio.
    ("sir_rates", "beta", "identified", "", ()),
    ("sir_rates", "recovery", "identified", "", ()),
    # Only the ratio of the two costs enters the response.
    ("sir_costs", "contact_cost", "weak", "invariant", ("infection_cost",)),
    # Without foresight costs do nothing.
    ("sir_flow", "infection_cost", "prior-driven", "invariant", ()),
    ("sir_flow", "beta", "identified", "", ()),
    # While nearly all are susceptible the infected grow at beta - recovery. In logarithms the free direction is 0.5 d log beta = 0.2 d log recovery:
    # of two equal priors 0.37 is left of beta's and 0.93 of recovery's; alone each would be known to a hundredth.
    ("sir_early", "beta", "weak", "confounded", ("recovery",)),
    ("sir_early", "recovery", "prior-driven", "confounded", ("beta",)),
    # Of log gamma, prior sd 3, and log weight, 0.8, only the sum is seen: a narrow gamma, as wide as the prior of the weight leaves it.
    ("lq_uneven", "gamma", "weak", "invariant", ("control_weight",)),
    # The same of an epidemic of 0.6 and 0.15: beta is left 0.24 of its prior sd, all of it the prior of the recovery.
    ("sir_outset", "beta", "weak", "confounded", ("recovery",)),
    # The attack enters through its products with both rates: of three equal priors 1 / sqrt(3) is left.
    ("cyber_attack", "attack_intensity", "weak", "invariant", ("q_inf_D", "q_inf_U")),
    # Nobody is defended and nobody can change that: contagion among the defended never happens.
    ("cyber_undefended", "beta_DD", "prior-driven", "null", ()),
    ("cyber_undefended", "q_rec_U", "identified", "", ()),
    # Differences of three terminal costs are seen, their level is not: 1 / sqrt(3) is left of each.
    ("bike_ends", "terminal_cost", "weak", "invariant", ()),
    # All three costs of the bar share one scale: 1 / sqrt(3).
    ("bar_costs", "switching_cost", "weak", "invariant", ("crowding", "regret")),
    # The bar is a quarter full, seventy widths of the smoothing below its threshold: crowding costs nothing.
    ("bar_quiet", "crowding", "prior-driven", "null", ()),
    # From one start the fine's size is one number, price times judgement; the sharpness hardly moves the judgement, so its prior decides nearly all.
    ("one_fine", "sharpness", "prior-driven", "null", ("price",)),
    # Late from the beginning: what the not arrived pay more than the arrived is c1 - c3 + (c2 + c3) s, two numbers for three costs.
    ("always_late", "lateness", "weak", "null", ("absence", "waiting")),
]
QUICK = ("lq_gamma", "lq_costs", "lq_uneven", "sir_flow", "bike_ends")


@pytest.mark.parametrize(
    ("name", "unknown", "verdict", "cause", "partners"),
    [pytest.param(*row, marks=[] if row[0] in QUICK else pytest.mark.slow) for row in TABLE],
)
def test_verdicts_are_those_of_theory(name, unknown, verdict, cause, partners):
    result = found(name)
    judged = result.verdicts[unknown]
    assert (judged.verdict, judged.cause, set(judged.partners)) == (verdict, cause, set(partners)), judged.reason
    row = result.table().loc[unknown]
    assert (row["verdict"], row["cause"]) == (verdict, cause)
    assert judged.reason.startswith(f"{unknown}: {verdict}")
    for partner in partners:
        assert partner in judged.reason or cause == "invariant"
    said = {
        "invariant": "no data of any kind can lower it below",
        "confounded": "because it is confounded with",
        "null": "without a trace" if partners else "nothing that is observed moves with it",
        "little seen": "hardly moves with it",
        "": "the posterior's sd is",
    }
    assert said[cause] in judged.reason


SHARES = [
    ("lq_uneven", "gamma", 0.8 / np.hypot(3.0, 0.8)),
    ("cyber_attack", "q_inf_D", 1 / np.sqrt(3)),
    ("bike_ends", "terminal_cost", 1 / np.sqrt(3)),
    ("bar_costs", "regret", 1 / np.sqrt(3)),
    ("sir_early", "recovery", 0.5 / np.hypot(0.5, 0.2)),
]


@pytest.mark.parametrize(
    ("name", "unknown", "left"), [pytest.param(*row, marks=[] if row[0] in QUICK else pytest.mark.slow) for row in SHARES]
)
def test_what_an_invariance_leaves_of_the_prior_is_what_geometry_says(name, unknown, left):
    """Up to what the data leave open besides, and the median of prior draws beside the prior's (sir_early, whose direction depends on it)."""
    np.testing.assert_allclose(found(name).verdicts[unknown].ratio, left, rtol=0.03)


@pytest.mark.parametrize(
    ("name", "unknown"), [("lq_uneven", "gamma"), pytest.param("sir_outset", "beta", marks=pytest.mark.slow)]
)
def test_what_is_narrow_by_another_unknowns_prior_is_not_identified(name, unknown):
    verdict = found(name).verdicts[unknown]
    assert float(verdict.ratio) < 0.3 and float(verdict.sway) > 0.8
    assert verdict.verdict == "weak" and "what is left of it hangs on priors" in verdict.reason


@pytest.mark.slow
def test_a_path_is_identified_late_and_its_priors_early():
    """LQ: once the population sits near its resting profile gamma leaves no trace; near the end, where the terminal cost is felt, it does."""
    result = found("lq_path")
    verdict = result.verdicts["gamma"]
    assert verdict.verdict == "weak" and verdict.ratio.shape == (21,)
    assert verdict.ratio[:7].min() > 0.8 and verdict.ratio[13:].max() < 0.3
    assert "prior-driven until t = " in verdict.reason and "identified from t = " in verdict.reason
    weak = [d for d in result.told if d.kind == "weak"]
    assert weak and all("until t" in d.sentence or "from t = 0" in d.sentence for d in weak)


@pytest.mark.slow
def test_pointwise_invariances_of_paths_are_found_in_all_their_directions():
    """Two paths of 19 numbers each of which only the product counts, on 11 times: 11 functions of time are free, and no data say otherwise."""
    paths = {"gamma": GaussianProcess(), "control_weight": GaussianProcess()}
    result = identifiability(identified.lq(paths), checked=0)
    free = [d for d in result.directions if d.kind == "invariant"]
    assert len(free) == 11
    for direction in free:
        gamma, weight = (direction.change[n] / result.values[n] for n in paths)
        np.testing.assert_allclose(gamma, -weight, atol=1e-6 * np.abs(gamma).max())
    np.testing.assert_array_less(1 / np.sqrt(2) - 1e-9, result.verdicts["gamma"].ratio)


# Points.


def test_points_are_what_was_given():
    model = own_noise()
    shares = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    given = identifiability(model, {"gamma": 0.7, "noise": 0.02, "mu0": shares}, checked=0)
    assert float(given.values["gamma"]) == pytest.approx(0.7, rel=1e-9)
    assert float(given.values["noise"]) == pytest.approx(0.02, rel=1e-9)
    np.testing.assert_allclose(given.values["mu0"], shares, rtol=1e-9)
    assert given.at == "the given values" and "was not checked" in given.warnings[0]
    flat = coordinates(model).prior_median()
    np.testing.assert_allclose(
        identifiability(model, flat, checked=0).singular_values, identifiability(model, checked=0).singular_values, rtol=1e-12
    )
    fit = bm.inference.fit(model, method="point", starts=1)
    at_mode = identifiability(model, fit, checked=0)
    assert at_mode.at == "the mode of a fit"
    np.testing.assert_allclose(at_mode.values["gamma"], fit.tree["posterior"]["gamma"].to_numpy()[0, 0, 0], rtol=1e-9)


def test_over_the_prior_verdicts_are_counted():
    from linear_model import Linear, population

    at_median = identifiability(Linear(population()), checked=0)
    every = bm.inference.identifiability_over_prior(Linear(population()), 5)
    table = every.table()
    for name, verdict in at_median.verdicts.items():  # a linear model has one answer
        assert table.loc[name, verdict.verdict] == 1.0 and table.loc[name, list(VERDICTS)].sum() == 1.0
        np.testing.assert_allclose(table.loc[name, ["low", "ratio", "high"]].astype(float), float(verdict.ratio), rtol=1e-9)
        assert any(text.startswith(f"{name}: {verdict.verdict} at 5 of 5; ") for text in every.sentences)
    assert every.failed == 0 and len(every.found) == 5
    limited = Linear(population(), limit=0.0)
    half = bm.inference.identifiability_over_prior(limited, 20, seed=1)
    assert 4 <= half.failed == 20 - len(half.found) <= 16
    assert half.sentences[-1].startswith(f"{half.failed} of 20 draws left out: no equilibrium")
    with pytest.raises(bm.inference.FitError, match="no draw of the prior has an equilibrium"):
        bm.inference.identifiability_over_prior(Linear(population(), limit=-50.0), 3)
    for wrong in ({"draws": 0}, {"draws": 2.5}, {"seed": -1}):
        with pytest.raises(InputError, match="identifiability_over_prior: "):
            bm.inference.identifiability_over_prior(limited, **wrong)


@pytest.mark.slow
def test_a_parameter_can_be_identified_at_some_draws_and_not_at_others():
    """A game in which gamma matters the less the smaller it is."""
    model = identified.calibration(
        LinearQuadratic(terminal_slope=0.2), {"gamma": identified.about(1.0, 2.0)}, identified.STARTS[:1]
    )
    table = bm.inference.identifiability_over_prior(model, 12).table()
    assert table.loc["gamma", "low"] < 0.5 * table.loc["gamma", "high"]


def test_a_point_without_equilibrium_or_finite_derivatives_is_refused_and_those_around_it_are_told():
    from linear_model import Linear, population

    model = Linear(population(), limit=0.0)
    with pytest.raises(bm.inference.FitError, match="No equilibrium was found at the given point"):
        identifiability(model, np.ones(2))
    result = identifiability(model, np.array([-0.1, 0.0]))
    assert any(
        "of 8 points of the linearised posterior have no equilibrium or no finite derivatives" in w for w in result.warnings
    )


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("posterior", "at is 'posterior'"),
        ("prior", "at is 'prior'"),
        ({"beta": 1.0}, "at has 'beta'; the model's unknowns are gamma"),
        ({"gamma": -1.0}, "gamma is -1.0"),
        ({"gamma": np.ones(3)}, r"at has 'gamma' of shape \(3,\)"),
        ({"gamma": "high"}, "at has 'gamma' = 'high'"),
        ({"gamma": np.nan}, "finite numbers"),
        ({"mu0": np.ones(5) / 5}, r"at has 'mu0' of shape \(5,\)"),
        (np.zeros(2), r"at has shape \(2,\)"),
        (object(), "a fit, a dict of values"),
    ],
)
def test_bad_points_are_refused(at, words):
    with pytest.raises(InputError, match=words):
        identifiability(own_noise(), at)


def test_bad_options_are_refused():
    with pytest.raises(InputError, match="model is int"):
        identifiability(3)
    for name in ("checked", "seed"):
        with pytest.raises(InputError, match=f"{name} is -1"):
            identifiability(own_noise(), **{name: -1})
    with pytest.raises(InputError, match=r"^sensitivity: at is .prior."):
        sensitivity(own_noise(), "prior")
    with jax.enable_x64(False), pytest.raises(InputError, match="double precision"):
        identifiability(own_noise())


# Results.


def test_a_result_is_a_table_sentences_a_picture_and_a_page(tmp_path):
    result = identifiability(identified.lq_gamma(), checked=2)
    assert list(result.table().columns) == [
        "verdict",
        "cause",
        "partners",
        "ratio",
        "least",
        "most",
        "sway",
        "alone",
        "contraction",
        "curved",
    ]
    assert result.informed == 1 and result.sentences[0].startswith("At the prior median: of 1 directions")
    assert "gamma: identified" in repr(result)
    picture = result.plot(tmp_path / "a.svg").read_text()
    assert picture.startswith("<svg") and "Singular values" in picture
    page = result.report(tmp_path / "a.html").read_text()
    assert "gamma: identified" in page and "What the data identify" in page
    with pytest.raises(InputError, match="nowhere"):
        result.plot(tmp_path / "nowhere" / "a.svg")


@pytest.mark.slow
def test_figures_show_paths_and_their_directions(tmp_path):
    result = found("lq_path")
    picture = result.plot(tmp_path / "a.svg").read_text()
    assert picture.count("<svg ") > 2 + len(result.told)
    assert "gamma: posterior sd / prior sd" in picture


def test_a_prior_that_is_not_normal_is_measured_by_its_draws():
    """Uniform on (0, 1): the slope of its logit times the logit's sd is 0.453 at 0.5, the sd is 0.289. Nothing is seen of it."""
    from linear_model import Linear, population

    model = Linear(population(), paths={"a": Constant(dist.Uniform(0.0, 1.0))}, observation=bm.models.Gaussian(scale=0.05))
    middle = identifiability(model, {"a": 0.5}, checked=0)
    assert "The prior of a is far from normal" in middle.warnings[-1] and "its sd is 1.5" in middle.warnings[-1]
    assert float(middle.verdicts["a"].ratio) == 1.0
    edge = identifiability(model, {"a": 0.02}, checked=0)
    assert "its sd is 0.12" in edge.warnings[-1] and edge.verdicts["a"].verdict == "prior-driven"
    assert "far from normal" not in " ".join(identifiability(Linear(population()), checked=0).warnings)


def test_a_verdict_ends_with_the_data():
    """Three of nine times are seen: the other six, of which the data say nothing, are told and not counted."""
    from linear_model import TIMES, Linear, population

    seen = population()
    mask = np.zeros(seen.shares.shape, bool)
    mask[:, :3] = True
    data = Population(TIMES, proportions=seen.shares[0], mask=mask[0])
    path = {"a": GaussianProcess(length_scale=0.1, scale=1.0, level_scale=0.1)}
    result = identifiability(Linear(data, paths=path, observation=bm.models.Gaussian(scale=1e-4)), checked=0)
    verdict = result.verdicts["a"]
    assert verdict.counted.tolist() == [True] * 3 + [False] * 6
    assert verdict.verdict == "identified" and "after the last datum, which is not counted, it is" in verdict.reason


# Raw sensitivities.


def test_sensitivity_is_that_of_the_model_that_was_asked():
    """Models that share what is compiled differ in their data and starts."""
    game, times = LinearQuadratic(), np.linspace(0.0, 1.0, 4)
    starts = [np.array([[0.2, 0.3, 0.5]]), np.array([[0.6, 0.3, 0.1]])]
    data = [Population(times, proportions=np.tile(s[:, None], (1, 4, 1)), states=list(game.state_names)) for s in starts]
    model = Calibration(game, data[0], {"gamma": identified.about(1.5)}, Dirichlet(noise=0.1), initial=starts[0], substeps=1)
    other = model.with_population(data[1], starts[1])
    first, second = (sensitivity(m, {"gamma": 1.5}) for m in (model, other))
    np.testing.assert_allclose(first.mu[0, 0], starts[0][0], rtol=1e-6)
    np.testing.assert_allclose(second.mu[0, 0], starts[1][0], rtol=1e-6)


@pytest.mark.slow
def test_sensitivities_on_the_grid_are_those_of_central_differences():
    model = identified.lq_path()
    found = sensitivity(model, {"gamma": 1.55})
    assert found.derivatives["gamma"].shape == (2, 21, 3, 21)
    np.testing.assert_allclose(found.paths["gamma"], 1.55, rtol=1e-6)
    grid = TimeGrid(2.0, 21)
    populations = jax.jit(lambda path, mu0: solve(LinearQuadratic(), {"gamma": path}, mu0, grid).mu)
    for r, k in ((0, 3), (1, 15), (0, 20)):
        up, down = (found.paths["gamma"] + sign * 1e-4 * np.eye(21)[k] for sign in (1, -1))
        ends = [np.asarray(populations(path, identified.STARTS[r])) for path in (up, down)]
        np.testing.assert_allclose(found.derivatives["gamma"][r, ..., k], (ends[0] - ends[1]) / 2e-4, rtol=1e-4, atol=1e-7)
    assert found.rank("gamma", 0.1) < found.rank("gamma", 0.01) < 21
