"""Protects `design`: gains against closed forms, finite differences and exhaustive search, and designs that can be carried out."""

import functools
import itertools

import jax
import jax.numpy as jnp
import linear_model as lm
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import bayes_mfg as bm
from bayes_mfg.cli import main
from bayes_mfg.config.design import run_design
from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.inference import Experiment, MeanOf, Observe, ShareOf, ValueOf, design, observations
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.inference.design_plan import Local, at_point, goal_slopes, planned
from bayes_mfg.inference.design_search import Linearised, Problem, exchange, exhaustive, greedy, searched, spread
from bayes_mfg.inference.expected_gain import FREEDOM, Table, _log_student, _replicates, expected_gain, solvable
from bayes_mfg.inference.linearised import prior_scale
from bayes_mfg.inference.sensitivity import sensitivities
from bayes_mfg.models import Calibration, Started

LINEAR = lm.Linear(lm.population())
EACH = observations(lm.TIMES, ["0"])
SLOPES = lm.SIZE * np.stack([np.ones_like(lm.TIMES), lm.TIMES], axis=1)

# Linear-quadratic game: a trajectory that is there, one from another start, and one under another terminal cost.
GRID = np.linspace(0.0, 1.0, 6)
START = (0.2, 0.3, 0.5)
COUNTS = np.repeat([[[200, 300, 500]]], len(GRID), axis=1)
GAME = bm.games.LinearQuadratic()
MODEL = Calibration(
    GAME,
    Population(GRID, counts=COUNTS),
    {"gamma": bm.paths.PiecewiseConstant(knots=2, level=1.5, scale=0.5)},
    bm.models.Multinomial(),
    initial=np.array([START]),
    substeps=2,
)
OTHER = Experiment("other", (0.8, 0.1, 0.1))
STEEP = Experiment("steep", START, {"terminal_slope": 8.0})
LQ = [*observations(GRID[1:], ["0", OTHER]), Observe(STEEP, 0.6, total=300), Observe("0", 0.2, total=5000, cost=5.0)]


@pytest.fixture(scope="module")
def plan():
    return planned(MODEL, LQ, [], given=False)


def information(chosen):
    """Of times of the linear model: both shares are seen."""
    rows = SLOPES[list(chosen)]
    return 2 * rows.T @ rows / lm.SCALE**2


def test_the_linear_model_gets_its_best_design_by_every_criterion():
    for criterion, goal, loss in (
        ("D", None, lambda m: -0.5 * np.linalg.slogdet(m)[1]),
        ("A", ValueOf("b", log=False), lambda m: 0.5 * np.log(np.linalg.inv(m)[1, 1])),
        ("A", [ValueOf("a", log=False), ValueOf("b", log=False)], lambda m: 0.5 * np.log(np.trace(np.linalg.inv(m)) / 2 / 1.0)),
    ):
        found = design(LINEAR, np.zeros(2), candidates=EACH, budget=3, criterion=criterion, goal=goal, given=False)
        losses = {s: loss(np.eye(2) + information(s)) for s in itertools.combinations(range(len(EACH)), 3)}
        assert losses[found.picked] == pytest.approx(min(losses.values()), abs=1e-9)
        assert found.gain.value == pytest.approx(loss(np.eye(2)) - min(losses.values()), rel=1e-9)
        even = losses[found.spread]
        expected = np.exp(min(losses.values()) - even) if criterion == "A" else even - min(losses.values())
        assert found.against_uniform.value == pytest.approx(expected, rel=1e-9)
        assert found.spread == (0, 4, 8)


def test_data_that_are_there_count_and_are_not_seen_again():
    mask = np.zeros((1, len(lm.TIMES), 2), bool)
    mask[:, 3:5] = True
    shares = np.where(mask, lm.population().shares, np.nan)
    data = Population(lm.TIMES, proportions=shares, mask=mask)
    model = lm.Linear(lm.population()).with_population(data, initial=np.array([[0.5, 0.5]]))
    later = observations(lm.TIMES[5:], ["0"])
    found = design(model, np.zeros(2), candidates=later, budget=1, given=True)
    before = np.eye(2) + information([3, 4])
    gains = [0.5 * (np.linalg.slogdet(before + information([k]))[1] - np.linalg.slogdet(before)[1]) for k in range(5, 9)]
    assert found.gain.value == pytest.approx(max(gains), rel=1e-9)
    assert found.picked == (int(np.argmax(gains)),)
    assert found.population().mask.sum() == 6
    with pytest.raises(InputError, match=r"observed at 0\.375 already"):
        design(model, np.zeros(2), candidates=EACH, budget=1, given=True)


def test_one_state_alone_tells_half_of_two():
    alone = design(LINEAR, np.zeros(2), candidates=[Observe("0", 1.0, states=("0",))], budget=1, given=False)
    both = design(LINEAR, np.zeros(2), candidates=[Observe("0", 1.0)], budget=1, given=False)
    x = SLOPES[-1] @ SLOPES[-1] / lm.SCALE**2
    assert alone.gain.value == pytest.approx(0.5 * np.log1p(x), rel=1e-9)
    assert both.gain.value == pytest.approx(0.5 * np.log1p(2 * x), rel=1e-9)


def test_the_nested_estimate_is_the_closed_form_of_a_linear_model():
    """Four standard errors: a false alarm in 16,000."""
    found = design(LINEAR, candidates=EACH[::2], budget=2, criterion="eig", draws=160, inner=60, given=False)
    gains = {s: 0.5 * np.linalg.slogdet(np.eye(2) + information(2 * np.array(s)))[1] for s in itertools.combinations(range(5), 2)}
    exact = gains[found.picked]
    assert exact > max(gains.values()) - 0.15
    gain, _ = found.judged.gains
    assert abs(gain.value - exact) < 4 * gain.error
    assert abs(gain.bias) < 0.02
    assert gain.ess > 30


def test_the_nested_estimate_of_each_truth_is_that_of_its_data():
    """With many inner points each term is `log p(y | truth) - log p(y)`, both of which a linear model has in closed form."""
    plan = planned(LINEAR, EACH, [], given=False)
    chosen = (2, 8)
    flat = np.array([[0.7, -0.4], [-1.0, 0.3]])
    points = [at_point(plan, x, None) for x in flat]
    found = expected_gain(plan, chosen, flat, points, 4000, 3)
    again = expected_gain(plan, chosen, flat, points, 4000, 3)
    np.testing.assert_array_equal(found.each, again.each)
    model = plan.carried(chosen)
    seen = np.repeat(SLOPES[list(chosen)], 2, axis=0) * np.tile([[1.0], [-1.0]], (2, 1))
    for x, key, each in zip(flat, jax.random.split(jax.random.key(3), 2), found.each, strict=True):
        y = (np.asarray(_replicates(model)(jnp.asarray(x)[None], key[None], model.data))[0, 0, list(chosen)] - 0.5).ravel()
        right = dist.Normal(seen @ x, lm.SCALE).log_prob(y).sum()
        evidence = dist.MultivariateNormal(np.zeros(4), seen @ seen.T + lm.SCALE**2 * np.eye(4)).log_prob(y)
        assert each == pytest.approx(float(right - evidence), abs=0.1)


def test_terms_of_the_nested_estimate_are_of_the_prior_that_can_be_solved():
    """With the prior cut at `a = 0`, half of it: the evidence is that of all times P(a < 0 | y) / P(a < 0)."""
    model = lm.Linear(lm.population(), limit=0.0)
    plan = planned(model, EACH, [], given=False)
    chosen, truth = (2, 8), np.array([[-0.6, 0.3]])
    share = solvable(plan, 2000, 0)
    assert abs(share - 0.5) < 0.05
    found = expected_gain(plan, chosen, truth, [at_point(plan, truth[0], None)], 4000, 3, 0.5)
    carried = plan.carried(chosen)
    seen = np.repeat(SLOPES[list(chosen)], 2, axis=0) * np.tile([[1.0], [-1.0]], (2, 1))
    key = jax.random.split(jax.random.key(3), 1)[0]
    y = (np.asarray(_replicates(carried)(jnp.asarray(truth), key[None], carried.data))[0, 0, list(chosen)] - 0.5).ravel()
    right = dist.Normal(seen @ truth[0], lm.SCALE).log_prob(y).sum()
    evidence = dist.MultivariateNormal(np.zeros(4), seen @ seen.T + lm.SCALE**2 * np.eye(4)).log_prob(y)
    covariance = np.linalg.inv(seen.T @ seen / lm.SCALE**2 + np.eye(2))
    mean = covariance @ seen.T @ y / lm.SCALE**2
    inside = scipy.stats.norm.logcdf(-mean[0] / np.sqrt(covariance[0, 0]))
    assert found.each[0] == pytest.approx(float(right - evidence - inside + np.log(0.5)), abs=0.1)
    some = Table(plan, truth, [at_point(plan, truth[0], None)], 1.0, 50, 0, 0.5)
    assert some(chosen)[0] == pytest.approx(
        Table(plan, truth, [at_point(plan, truth[0], None)], 1.0, 50, 0)(chosen)[0] - np.log(0.5)
    )


def test_densities_of_proposals_are_students():
    rng = np.random.default_rng(0)
    factor, away = rng.standard_normal((3, 3)), rng.standard_normal((4, 3))
    exact = scipy.stats.multivariate_t(np.zeros(3), factor @ factor.T, df=FREEDOM).logpdf(away)
    np.testing.assert_allclose(_log_student(away, factor), exact, rtol=1e-9)
    with pytest.raises(np.linalg.LinAlgError):
        _log_student(away, np.diag([1.0, 1.0, 0.0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_losses_that_are_no_numbers_end_every_search(bad):
    nothing = Problem([1.0] * 3, 2.0, [frozenset()] * 3, lambda chosen: np.array([bad, 0.0]), worst=False)
    assert len(searched(nothing)) <= 2
    assert len(exchange(nothing, (0,))) <= 2


def test_the_even_rival_spends_the_budget_and_takes_the_best_alternative():
    worth = np.array([1.0, 3.0, 1.0, 3.0, 1.0, 3.0, 0.1])

    def loss(chosen):
        return -worth[list(chosen)].sum() * np.ones(2)

    # Two numbers of agents at three times, at one cost and at another, and a cheap thing beside them.
    apart = [frozenset({k ^ 1}) for k in range(6)] + [frozenset()]
    same = Problem([1.0] * 7, 2.0, apart, loss, worst=False)
    assert spread(same, range(6)) == (1, 5)
    assert spread(Problem([1.0, 2.0] * 3 + [1.0], 3.0, apart, loss, worst=False), range(6)) == (0, 3)
    only = Problem([5.0, 5.0, 1.0], 1.0, [frozenset()] * 3, lambda chosen: -np.ones(1) * len(chosen), worst=False)
    assert spread(only, range(3)) == (2,)


def test_the_first_observation_is_no_evidence_where_the_start_is_taken_from_it():
    data = Population(GRID, counts=COUNTS)
    model = Calibration(GAME, data, {"gamma": dist.LogNormal(0, 1)}, bm.models.Multinomial(), initial="observed", substeps=2)
    made = planned(model, [Observe(OTHER, 0.4)], [], given=True)
    np.testing.assert_array_equal(np.asarray(made.model.data.record.mask)[0], np.asarray(model.data.record.mask)[0])
    assert not made.there[0, 0].any()
    with pytest.raises(InputError, match="starts at its first observation"):
        planned(model, [Observe("0", 0.0)], [], given=False)


def test_recorded_data_count_but_for_blank_ones_and_it_is_said():
    later = Population(lm.TIMES, proportions=lm.population().shares, mask=np.repeat(lm.TIMES < 0.5, 2).reshape(1, -1, 2))
    model = LINEAR.with_population(later, initial=np.array([[0.5, 0.5]]))
    some = {"candidates": observations(lm.TIMES[5:], ["0"]), "budget": 1}
    counted, form = design(model, np.zeros(2), **some), design(model, np.zeros(2), given=False, **some)
    assert "The 4 observations that are there were used" in " ".join(counted.sentences)
    assert "The 4 observations of the model were not used" in " ".join(form.sentences)
    assert counted.gain.value < form.gain.value
    assert any("of a row as independent though they sum to one" in w for w in counted.warnings)


def test_a_rival_of_ones_own_is_called_so_and_checked():
    mine = [EACH[1], EACH[2]]
    found = design(LINEAR, np.zeros(2), candidates=EACH, budget=2, against=mine, given=False)
    loss = {s: -0.5 * np.linalg.slogdet(np.eye(2) + information(s))[1] for s in (found.picked, (1, 2))}
    assert found.against_uniform.value == pytest.approx(loss[1, 2] - loss[found.picked], rel=1e-9)
    assert "the design that it is held against" in " ".join(found.sentences)
    assert "even spread" not in " ".join(found.sentences)
    assert list(np.flatnonzero(found.table()["uniform"])) == [1, 2]
    for wrong, message in (
        ([], "at least one"),
        (["0"], "at least one"),
        (EACH[:3], "against costs 3"),
        ([EACH[1], EACH[1]], "the same cell"),
    ):
        with pytest.raises(InputError, match=message):
            design(LINEAR, np.zeros(2), candidates=EACH, budget=2, against=wrong, given=False)


def test_numbers_of_agents_need_costs():
    offered = observations([0.2, 0.4], ["0"], totals=[100, 763], cost=[1.0, 3.0])
    assert [(c.total, c.cost) for c in offered] == [(100, 1.0), (763, 3.0)] * 2
    with pytest.raises(InputError, match="one for each of 2 totals"):
        observations([0.2], ["0"], totals=[100, 763], cost=[1.0])
    with pytest.raises(InputError, match="with 100 and with 763 agents at the same cost"):
        design(MODEL, candidates=observations([0.2], ["0"], totals=[100, 763]), budget=1, given=False)


def random_problem(seed, count=8, size=4, draws=3, budget=3, criterion="A"):
    rng = np.random.default_rng(seed)
    points = [
        Local(
            rng.standard_normal((1, size)),
            tuple(rng.standard_normal((2, size)) * rng.exponential(2.0) for _ in range(count)),
            rng.standard_normal((2, size)),
        )
        for _ in range(draws)
    ]
    return Problem(np.ones(count), budget, [frozenset()] * count, Linearised(points, criterion), worst=bool(seed % 2))


def test_exchange_finds_what_looking_at_every_set_finds():
    exact = 0
    for seed in range(24):
        problem = random_problem(seed, criterion="DA"[seed % 3 > 0])
        best, found, first = (problem.value(f(problem)) for f in (exhaustive, searched, greedy))
        assert best <= found + 1e-12
        assert found <= first + 1e-12
        exact += found <= best + 1e-9
    assert exact >= 20  # it has no guarantee
    problem = random_problem(2)
    assert problem.value(exchange(problem, (5, 6, 7))) < problem.value((5, 6, 7))


def test_costs_clashes_and_the_worst_draw():
    worth = np.array([3.0, 2.0, 2.0, 5.0])

    def loss(chosen):
        return -worth[list(chosen)].sum() * np.array([1.0, 0.1])

    dear = Problem([1.0, 1.0, 1.0, 3.0], 3.0, [frozenset()] * 4, loss, worst=False)
    assert searched(dear) == exhaustive(dear) == (0, 1, 2)  # by gain alone the dear one goes first
    apart = Problem([1.0] * 4, 2.0, [frozenset({3}), frozenset(), frozenset(), frozenset({0})], loss, worst=True)
    assert set(searched(apart)) == set(exhaustive(apart)) <= {1, 2, 3}
    assert apart.value((0,)) == pytest.approx(-0.3)
    assert spread(dear, [0, 1, 2, 3]) == (0, 1, 2)
    assert spread(apart, [0, 1, 2, 3]) == (2, 3)
    assert spread(Problem([1.0] * 5, 1.0, [frozenset()] * 5, loss, False), range(5)) == (2,)


def test_an_experiment_tells_what_differences_of_its_own_game_say(plan):
    """Information of counts under another constant of the game, from another start, and of another total."""
    space = coordinates(plan.model)
    flat = space.prior_median() + 0.1 * np.arange(space.size)
    found = at_point(plan, flat, None)
    grid = bm.equilibrium.TimeGrid.from_times(GRID, 2)

    def shares(x, start, slope, time):
        raw = space.latents(space.constrain(jnp.asarray(x)), plan.model.data)["raw"]["gamma"]
        path = plan.model.bound["gamma"].function(raw)
        game = bm.games.LinearQuadratic(terminal_slope=slope)
        mu = bm.equilibrium.solve(game, {"gamma": path}, np.array(start), grid).mu
        return np.asarray(mu)[round(5 * time)]

    for k, (start, slope, time, total) in {
        1: (START, 5.0, 0.4, 1000),
        7: (OTHER.shares, 5.0, 0.6, 1000),
        10: (START, 8.0, 0.6, 300),
        11: (START, 5.0, 0.2, 5000),
    }.items():
        step = 1e-5 * np.eye(space.size)
        slopes = np.stack(
            [(shares(flat + h, start, slope, time) - shares(flat - h, start, slope, time)) / 2e-5 for h in step], axis=1
        )
        slopes = slopes @ prior_scale(plan.model)
        expected = total * slopes.T @ (slopes / shares(flat, start, slope, time)[:, None])
        np.testing.assert_allclose(found.roots[k].T @ found.roots[k], expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_slopes_of_any_goal_are_those_of_differences(plan):
    """A goal through parameters and through the difference that an experiment makes."""

    def effect(values, mu):
        return jnp.stack([jnp.sum((mu["steep"] - mu["0"]) ** 2), jnp.log(values["gamma"][2]) * mu["other"][3, 1]])

    space = coordinates(plan.model)
    flat = space.prior_median() + 0.1
    function = sensitivities(plan.model)
    found = function(jnp.asarray(flat), plan.model.data)
    slopes = goal_slopes(plan, found, effect)

    def value(x):
        implied = function(jnp.asarray(x), plan.model.data).implied
        mu = dict(zip(plan.blank.trajectories, implied["mu"], strict=True))
        return np.asarray(effect({"gamma": implied["parameter/gamma"]}, mu))

    brute = np.stack([(value(flat + h) - value(flat - h)) / 2e-5 for h in 1e-5 * np.eye(space.size)], axis=1)
    np.testing.assert_allclose(slopes, brute, rtol=1e-5, atol=1e-9)


def test_named_goals_are_what_they_say():
    times = np.array([0.0, 0.5, 2.0])
    path, mu = jnp.array([1.0, 3.0, 2.0]), {"x": jnp.arange(6.0).reshape(3, 2)}
    assert ValueOf("g", 0.5).bind(times, ("a", "b"), ())({"g": path}, mu) == pytest.approx(np.log(3.0))
    two = jnp.stack([path, 2 * path])
    np.testing.assert_allclose(ValueOf("g", 2.0, log=False).bind(times, ("a", "b"), {"g"})({"g": two}, mu), [2.0, 4.0])
    mean = (0.5 * 2.0 + 1.5 * 2.5) / 2.0
    assert MeanOf("g", log=False).bind(times, (), ())({"g": path}, mu) == pytest.approx(mean)
    np.testing.assert_allclose(MeanOf("g", 0.5, 2.0).bind(times, (), {"g"})({"g": two}, mu), np.log([2.5, 5.0]), rtol=1e-12)
    assert ShareOf("b", 2.0, "x").bind(times, ("a", "b"), ())({}, mu) == 5.0


def test_a_design_is_carried_out(tmp_path):
    found = design(MODEL, candidates=LQ, budget=4, goal=ValueOf("gamma", 0.2), draws=4, given=False)
    assert len(found.picked) <= 4
    assert sum(c.cost for c in found.chosen) <= 4
    truth = coordinates(found.plan.model).prior_median()
    data = found.simulate(truth, seed=1)
    assert data.mask.any(axis=-1).sum() == len(found.chosen)
    for c in found.chosen:
        row = data.counts[data.trajectories.index(c.place), round(5 * c.moments[0])]
        assert row.sum() == (c.total or 1000)
    model = found.model(data)
    assert np.array_equal(np.asarray(model.data.record.mask), data.mask.all(axis=-1))
    assert model.compiled is found.plan.model.compiled
    table = found.table()
    assert list(np.flatnonzero(table["chosen"])) == list(found.picked)
    assert (table.loc[list(found.picked), "without"] > 0).all()
    assert found.against_uniform.value < 0.9  # at draws that the search has not seen
    assert "independent" in " ".join(found.sentences)
    assert found.plot(tmp_path / "design.svg").read_text().startswith("<svg")
    assert str(len(found.picked)) in repr(found)


def test_a_design_is_carried_out_beside_data_that_are_there():
    """Two of three states are looked at: old numbers stay, new ones are those of the truth that is given by its values."""
    mask = np.zeros((1, len(GRID), 3), bool)
    mask[:, :3, :2] = True
    old = np.random.default_rng(0).dirichlet([3.0, 3.0, 3.0], (1, len(GRID)))
    model = Calibration(
        GAME,
        Population(GRID, proportions=np.where(mask, old, np.nan), mask=mask),
        {"gamma": bm.paths.PiecewiseConstant(knots=2, level=1.5, scale=0.5)},
        bm.models.Gaussian(scale=1e-4),
        initial=np.array([START]),
        substeps=2,
    )
    found = design(model, {"gamma": 1.0}, candidates=observations(GRID[3:], ["0"], states=[("0", "1")]), budget=2)
    data = found.simulate({"gamma": 0.5}, seed=3)
    new = data.mask & ~mask
    assert np.array_equal(data.mask & mask, mask) and new.sum() == 4 and not new[..., 2].any()
    np.testing.assert_array_equal(data.proportions[mask], old[mask])
    mu = bm.equilibrium.solve(GAME, {"gamma": 0.5}, START, bm.equilibrium.TimeGrid(1.0, len(GRID), substeps=2)).mu
    np.testing.assert_allclose(data.proportions[new], np.asarray(mu)[None][new], atol=5e-4)
    assert np.ptp(data.proportions[new] - np.asarray(mu)[None][new]) > 0
    assert found.model(data).population is data
    for truth, words in (
        ({"gamma": [0.5, 3.0, 0.5, 3.0, 0.5, 3.0]}, "truth is none .* gamma cannot follow"),
        ({"delta": 1.0}, "truth has 'delta'"),
        (np.zeros(7), "truth has shape"),
        (None, "truth is None"),
    ):
        with pytest.raises(InputError, match=words):
            found.simulate(truth)


def test_starts_that_an_experimenter_knows_stand_beside_unknown_ones():
    rows = np.array([[np.nan] * 3, OTHER.shares])
    data = Population(GRID, counts=np.repeat(COUNTS, 2, axis=0))
    model = Calibration(GAME, data, {"gamma": 1.5}, bm.models.Multinomial(), initial=Started(bm.models.UnknownShares(), rows))
    drawn = np.asarray(model.initial.sample(lambda name, prior: prior.mean, jnp.asarray(model.initial.fixed(data))))
    np.testing.assert_allclose(drawn, [[1 / 3] * 3, OTHER.shares])
    with pytest.raises(InputError, match="sum to one"):
        Started(bm.models.UnknownShares(), np.ones((2, 3))).fixed(data)
    unknown = Calibration(GAME, Population(GRID, counts=COUNTS), {"gamma": dist.LogNormal(0, 1)}, bm.models.Multinomial())
    made = planned(unknown, [Observe(OTHER, 0.4), Observe(Experiment("free"), 0.4)], [], given=True)
    assert np.isnan(np.asarray(made.model.initial.mu0)).all(axis=1).tolist() == [True, False, True]


def test_what_differs_between_trajectories_is_not_guessed_for_a_new_one():
    data = Population(GRID, counts=np.repeat(COUNTS, 2, axis=0))
    starts, gamma = np.array([START, START]), {"gamma": dist.LogNormal(0, 1)}

    def slopes(known, *experiments):
        paths = {**gamma, "terminal_slope": bm.paths.Given(known)}
        model = Calibration(GAME, data, paths, bm.models.Multinomial(), initial=starts, substeps=2)
        made = planned(model, [Observe(one, 0.2) for one in experiments], [], given=False)
        return made.model.bound["terminal_slope"].values.tolist()

    assert slopes([6.0, 6.0], OTHER) == [6.0] * 3
    assert slopes([6.0, 6.0], OTHER, STEEP) == [6.0] * 3 + [8.0]
    assert slopes([6.0, 7.0], STEEP) == [6.0, 7.0, 8.0]
    for some in ([OTHER], [STEEP, OTHER]):
        with pytest.raises(InputError, match="'other' sets no terminal_slope, which differs between the model's trajectories"):
            slopes([6.0, 7.0], *some)


WRONG = [
    ({"candidates": []}, "at least one"),
    ({"budget": -1}, "budget is -1"),
    ({"budget": 0.5}, "less than the cheapest"),
    ({"criterion": "E"}, "choose one of D, A, eig"),
    ({"criterion": "D", "goal": ValueOf("gamma")}, "belongs to criterion 'A'"),
    ({"goal": "gamma"}, "goal is 'gamma'"),
    ({"goal": ValueOf("beta")}, "'beta'"),
    ({"search": "random"}, "search is 'random'"),
    ({"draws": 1}, "draws is 1"),
    ({"criterion": "eig", "given": True}, "truths from the prior"),
    ({"candidates": [Observe("1", 0.2)]}, "trajectory is '1'"),
    ({"candidates": [Observe("0", 0.25)]}, "a time of the model's grid"),
    ({"candidates": [Observe("0", 0.2, states=("0",))]}, "sees all of its states together"),
    ({"candidates": [Observe(Experiment("0", START), 0.2)]}, "another name is needed"),
    ({"candidates": [Observe(Experiment("new"), 0.2)]}, "has no shares"),
    ({"candidates": [Observe(Experiment("new", START, {"gamma": 2.0}), 0.2)]}, "gamma is unknown in this model"),
    ({"candidates": [Observe(Experiment("new", START, {"slope": 2.0}), 0.2)]}, "no parameter or constant 'slope'"),
    ({"candidates": [Observe(Experiment("new", (0.5, 0.5)), 0.2)]}, "3 are needed"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG, ids=[m for _, m in WRONG])
def test_what_does_not_fit_is_refused_in_a_sentence(changed, message):
    given = {"candidates": [Observe("0", 0.2)], "budget": 1, "draws": 2, "given": False, **changed}
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        design(MODEL, **given)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Observe("0", ()), "at least one time"),
        (lambda: Observe("0", 0.1, states="I"), "a list of names"),
        (lambda: Observe("0", 0.1, total=0), "total is 0"),
        (lambda: Observe("0", 0.1, cost=0), "cost is 0"),
        (lambda: Experiment("", None), "name is ''"),
        (lambda: Experiment("x", (0.5, 0.6)), "sum to one"),
    ],
)
def test_candidates_are_checked_when_they_are_made(make, message):
    with pytest.raises(InputError, match=message):
        make()


CONFIG = """
[data]
reader = "blank"
times = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
states = ["0", "1", "2"]
total = 1000
[game]
name = "LinearQuadratic"
[paths.gamma]
family = "PiecewiseConstant"
knots = 2
[observation]
kind = "Multinomial"
[initial]
kind = "Known"
mu0 = [0.2, 0.3, 0.5]
[grid]
substeps = 2
[design]
budget = 2
draws = 4
goal = {kind = "MeanOf", name = "gamma"}
starts = [{name = "new", shares = [0.8, 0.1, 0.1]}, {name = "steep", shares = [0.2, 0.3, 0.5], parameters = {terminal_slope = 8.0}}]
"""


@pytest.mark.slow
def test_the_command_line_designs_what_a_config_asks_for(tmp_path, capsys):
    place, picture = tmp_path / "plan.toml", tmp_path / "plan.svg"
    place.write_text(CONFIG)
    assert main(["design", str(place), "--out", str(picture)]) == 0
    said = capsys.readouterr().out
    assert "2 observations of 15 candidates" in said
    assert "log mean of gamma" in said
    assert picture.read_text().startswith("<svg")
    assert main(["fit", str(place), "--out", str(tmp_path / "run")]) == 2
    assert "blank" in capsys.readouterr().err


def test_a_config_names_the_rival_by_the_numbers_of_candidates(tmp_path, monkeypatch):
    asked = {}
    taken = functools.wraps(design)(lambda model, at, **given: asked.update(given))
    monkeypatch.setattr("bayes_mfg.config.design.design", taken)
    place = tmp_path / "plan.toml"
    for more, places in (("", None), ("against = [6, 3]", [("new", (0.4,)), ("0", (0.8,))])):
        place.write_text(CONFIG + "given = false\n" + more)
        run_design(place, MODEL)
        assert places == (asked["against"] and [(c.place, c.moments) for c in asked["against"]])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("budget = 2", "budget = 2\nbudgets = 3", "did you mean 'budget'"),
        ("budget = 2", "", "needs the key 'budget'"),
        ('"MeanOf"', '"MeanOff"', "did you mean 'MeanOf'"),
        ('name = "gamma"}', 'name = "gamma", end = 0.3}', "a time of the model's grid"),
        ("terminal_slope", "slope", "no parameter or constant 'slope'"),
        ('name = "new", ', "", "needs the key 'name'"),
        ("[design]", "[plans]", "does not take the table"),
        ("draws = 4", "times = 4", "a list is needed"),
        ("draws = 4", "against = [0, 15]", "against = [0, 15]; numbers of the 15 candidates, from 0 to 14"),
        ("draws = 4", "against = [0, 1, 2]", "against costs 3, more than the budget of 2"),
        ("draws = 4", "totals = [100, 1000]", "one number for each of totals"),
        ("draws = 4", "totals = [100, 1000]\ncosts = [1.0, 1.0]", "at the same cost"),
    ],
)
def test_the_command_line_refuses_in_a_sentence(tmp_path, capsys, old, new, message):
    place = tmp_path / "plan.toml"
    place.write_text(CONFIG.replace(old, new))
    assert main(["design", str(place)]) == 2
    assert message in capsys.readouterr().err
