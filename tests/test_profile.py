"""Protects profile likelihoods: against closed forms, slow searches and differences; sets that are unions, open ends, failed solves, and coverage."""

import concurrent.futures
import dataclasses
import types
import xml.etree.ElementTree as ET
from multiprocessing.reduction import ForkingPickler

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.optimize
from linear_model import SCALE, SIZE, TIMES, Linear, population, posterior
from one_unknown import NOISE, calibration, simulated
from scipy.stats import chi2

import bayes_mfg as bm
from bayes_mfg.errors import InputError
from bayes_mfg.inference import FitError, Profile, Value, profile, profiles
from bayes_mfg.inference.coordinates import coordinates, potential
from bayes_mfg.inference.profile import _Job, _kept
from bayes_mfg.inference.profile_quantity import quantity, usual_quantities
from bayes_mfg.inference.profile_scan import Held, _Walk, unsettled
from bayes_mfg.inference.profile_target import Surface, Target

LEVELS = (0.9, 0.95)
GP = bm.paths.GaussianProcess(length_scale=0.4)


@pytest.fixture(scope="module")
def linear():
    return Linear(population())


@pytest.fixture(scope="module")
def game():
    """Gamma and the noise of the linear-quadratic game."""
    noise = bm.models.Dirichlet(noise=dist.LogNormal(np.log(NOISE), 1.0))
    return calibration(simulated(noise="dirichlet", size=NOISE, seed=1), observation=noise)


@pytest.fixture(scope="module")
def wavy():
    """A path and a constant, in which everything is linear and normal."""
    return Linear(population(), {"a": GP, "b": bm.paths.Constant()})


def log_likelihood(model, values):
    """Log likelihood at given parameters: the potential less the prior's."""
    space = coordinates(model)
    sites = {name: jnp.asarray(values[name.split("/")[0]]) for name in space.shapes}
    flat = space.unconstrain(sites)
    return float(space.prior_potential(flat, model.data) - potential(model)(flat, model.data))


def squared(values):
    return values["gamma"] ** 2


def product(values):
    return values["gamma"] * values["noise"]


def mean_path(values):
    return values["a"].mean() + 0.5 * values["b"]


def test_profiles_of_a_linear_model_are_parabolas(linear):
    """With the priors of all, and with none: flat priors make the covariance that of least squares."""
    mean, covariance = posterior(population())
    free = np.linalg.inv(np.linalg.inv(covariance) - np.eye(2))
    least = free @ np.linalg.inv(covariance) @ mean
    half = np.linalg.inv(np.linalg.inv(covariance) - np.diag([0.0, 1.0]))  # the prior of a alone
    centre = half @ np.linalg.inv(covariance) @ mean
    for priors, at, width in (("all", mean, covariance), ("paths", least, free), ((), least, free), (["a"], centre, half)):
        for k, name in enumerate(("a", "b")):
            found = profile(linear, name, priors=priors, levels=LEVELS)
            sd = np.sqrt(width[k, k])
            assert found.estimate == pytest.approx(at[k], abs=1e-4 * sd)
            np.testing.assert_allclose(found.deviance, (found.values - at[k]) ** 2 / width[k, k], atol=1e-6)
            for level in LEVELS:
                ends = at[k] + np.array([-1, 1]) * sd * np.sqrt(chi2.ppf(level, 1))
                np.testing.assert_allclose(found.sets[level].intervals, [ends], atol=2e-3 * sd)
                assert not found.sets[level].open_below and not found.sets[level].open_above
            assert found.off < 1e-10 and found.unsettled == 0 and found.warnings == ()
            assert np.all(np.diff(found.values) > 0) and found.ends == ("the level was reached",) * 2


def test_a_path_at_a_time_keeps_the_prior_of_the_path(wavy):
    """Where all is linear and normal, the set is that of Bayes' rule with a flat prior on the constant, from one dense inverse."""
    assert _kept(wavy, "paths") == ("a",)
    target = Target(wavy, ("a",))
    z = np.zeros(coordinates(wavy).size)
    _, gradient, curvature = target(z)
    covariance = np.linalg.inv(curvature)
    for asked in (("a", 0.3), Value("a", time=1.0), mean_path):
        found = profile(wavy, asked, levels=0.95, starts=1)
        place, slope, _ = quantity(wavy, asked).constraint(wavy.data)(z)
        centre = place - slope @ covariance @ gradient
        sd = np.sqrt(slope @ covariance @ slope)
        ends = centre + np.array([-1, 1]) * sd * np.sqrt(chi2.ppf(0.95, 1))
        np.testing.assert_allclose(found.sets[0.95].intervals, [ends], atol=2e-3 * sd)
        np.testing.assert_allclose(found.deviance, ((found.values - centre) / sd) ** 2, atol=1e-5)
        assert found.off < 1e-9 and found.priors == ("a",)
    along = coordinates(wavy)
    sites = along.constrain(jnp.asarray(found.locations[0]))
    path = jax.vmap(wavy.bound["a"].function({n.split("/")[1]: v for n, v in sites.items() if n[0] == "a"}), (0, None))
    values = path(jnp.asarray(wavy.grid.times), jnp.zeros(2))
    assert float(mean_path({"a": values, "b": sites["b/level"]})) == pytest.approx(found.values[0], abs=1e-9)


def test_a_game_is_profiled_as_by_a_slow_search(game):
    """At every value the best noise by a search in one dimension; the ends of the sets by bisection; other scales of a quantity give the same set."""
    found = profiles(game, ["gamma", squared, product], levels=LEVELS, starts=2)

    def best(gamma):
        return -scipy.optimize.minimize_scalar(
            lambda x: -log_likelihood(game, {"gamma": gamma, "noise": np.exp(x)}), bounds=(-7, -2), method="bounded"
        ).fun

    one = found["gamma"]
    for k in range(0, len(one.values), 6):
        assert one.log_likelihood[k] == pytest.approx(best(one.values[k]), abs=1e-5)
    limit = one.maximum - 0.5 * chi2.ppf(0.95, 1)
    ((low, high),) = one.sets[0.95].intervals
    for end in (low, high):
        assert best(end) == pytest.approx(limit, abs=3e-3)
    ((a, b),) = found["squared"].sets[0.95].intervals
    np.testing.assert_allclose(np.sqrt([a, b]), [low, high], atol=1e-3 * (high - low))
    assert found["squared"].off < 1e-9 and found["product"].off < 1e-9
    some = found["product"]
    for k in (0, len(some.values) // 2, -1):
        q = some.values[k]
        slow = -scipy.optimize.minimize_scalar(
            lambda x, q=q: -log_likelihood(game, {"gamma": np.exp(x), "noise": q / np.exp(x)}), bounds=(-2, 2), method="bounded"
        ).fun
        assert some.log_likelihood[k] == pytest.approx(slow, abs=1e-5)
    assert one.unsettled == 0 and one.evaluations < 100  # warm starts: some three for each point


def test_data_sets_of_one_shape_share_the_compiled_function(game):
    other = game.with_population(simulated(noise="dirichlet", size=NOISE, seed=2))
    functions = set(game.compiled)
    assert profile(other, "gamma", starts=2).estimate != profile(game, "gamma", starts=2).estimate
    assert set(game.compiled) == functions
    assert game.compiled["penalised"]._cache_size() == 1


def test_a_surface_and_its_derivatives(game):
    """Points have the value; gradient and curvature are those of differences of the value along the surface."""
    target = Target(game, ("gamma",))
    constraint = quantity(game, product).constraint(game.data)
    anchor = np.array([0.5, -4.5])
    level = constraint(anchor)[0] * 1.3
    surface = Surface(target, constraint, anchor, level, np.array([[0.3, 0.0], [0.1, 0.2]]))
    for y in (-0.4, 0.0, 0.7):
        z = surface.point(np.array([y]))
        assert constraint(z)[0] == pytest.approx(level, abs=1e-10)
        _, gradient, _ = surface(np.array([y]))
        up, down = (surface(np.array([y + h]))[0] for h in (1e-4, -1e-4))
        assert gradient[0] == pytest.approx((up - down) / 2e-4, rel=1e-5)


def test_the_curvature_of_a_surface(game):
    """The target's own curvature is Gauss-Newton's: what the surface adds is compared alone, with a target that is quadratic."""
    constraint = quantity(game, product).constraint(game.data)
    anchor = np.array([0.5, -4.5])
    centre, weight = np.array([0.4, -4.0]), np.array([[2.0, 0.3], [0.3, 1.0]])

    def bowl(z):
        return 0.5 * (z - centre) @ weight @ (z - centre), weight @ (z - centre), weight

    surface = Surface(bowl, constraint, anchor, 1.3 * constraint(anchor)[0], np.eye(2))
    for y in (0.0, 0.3):
        mid, up, down = (surface(np.array([y + h]))[0] for h in (0.0, 1e-4, -1e-4))
        assert surface(np.array([y]))[2][0, 0] == pytest.approx((up - 2 * mid + down) / 1e-8, rel=1e-4)


def test_the_penalty_is_the_potential_where_all_priors_count(game, wavy):
    for model in (game, wavy):
        space = coordinates(model)
        z = 0.3 * np.random.default_rng(0).standard_normal(space.size) - 0.2
        full, none = Target(model, model.bound.keys() | model.observation.priors.keys()), Target(model, ())
        flat = jnp.asarray(z)
        assert full(z)[0] == pytest.approx(float(potential(model)(flat, model.data)), rel=1e-12)
        difference = full(z)[0] - none(z)[0]
        assert difference == pytest.approx(float(space.prior_potential(flat, model.data)), rel=1e-10)
    slope = jax.grad(space.potential)(flat, wavy.data)
    np.testing.assert_allclose(full(z)[1], slope, rtol=1e-9, atol=1e-9)


class Squared(Linear):
    """The share moves with the square of a: its sign leaves no trace."""

    def trajectories(self, latents, data=None, key=None):
        squares = {name: value**2 for name, value in latents["raw"]["a"].items()}
        return super().trajectories({**latents, "raw": {"a": squares}}, data, key)


def test_sets_are_unions_where_the_profile_has_two_hills():
    """And the second hill is seen only where one is told to look."""
    data = population(a=4.0, b=0.0)
    model = Squared(data, {"a": bm.paths.Constant()})
    one = profile(model, "a", at={"a": 2.0}, starts=1)
    assert len(one.sets[0.95].intervals) == 1
    both = profile(model, "a", at={"a": 2.0}, starts=1, between=(-4.0, 4.0))
    (low, high), (a, b) = both.sets[0.95].intervals
    np.testing.assert_allclose([-high, -low], [a, b], atol=2e-3)
    assert 2.0 in both.sets[0.95] and -2.0 in both.sets[0.95] and 0.0 not in both.sets[0.95]
    np.testing.assert_allclose([a, b], one.sets[0.95].intervals[0], atol=2e-3)
    assert not both.sets[0.95].open_below and not both.sets[0.95].open_above
    assert " and " in str(both.sets[0.95]) and both.table().loc[0.95, "intervals"] == 2
    near = profile(model, "a", at={"a": 2.0}, starts=1, between=(1.99, 4.0))
    assert (
        near.sets[0.95].open_below
        and -7.0 in near.sets[0.95]
        and "open below: the range that was given ends at 1.99" in near.warnings[0]
    )


def test_open_ends_say_so():
    """A parameter without a trace, and one beyond which nothing can be solved."""
    model = Linear(population(a=0.5), limit=1.0)
    found = profile(model, "a", at={"a": 0.2}, starts=1)
    assert found.sets[0.95].open_above and not found.sets[0.95].open_below
    assert found.failed_solves > 0 and "no equilibrium was found beyond" in found.ends[1]
    assert found.values.max() <= 1.0 and 5.0 in found.sets[0.95]
    assert "is open above: no equilibrium" in found.warnings[0] and "turned back" in found.warnings[1]
    assert "or more)" in found.sentence

    class Traceless(Linear):
        def trajectories(self, latents, data=None, key=None):
            raw = {**latents["raw"], "b": {"level": 0.0 * latents["raw"]["b"]["level"]}}
            return super().trajectories({**latents, "raw": raw}, data, key)

    found = profile(Traceless(population()), "b")
    assert found.sets[0.9].open_below and found.sets[0.9].open_above
    assert "still above the level" in found.ends[0] and found.deviance.max() < 1e-6


def test_a_search_that_started_on_the_lower_hill_starts_again():
    """Two hills of different heights: the profile climbs above the first maximum and the search goes on from there."""

    model = Squared(population(seed=3, a=4.0, b=0.0), {"a": bm.paths.Constant(prior=dist.Normal(2.0, 1.0))})
    for start in (-2.0, 2.0):  # the prior of a is centred at 2: with it the left hill is lower
        found = profile(model, "a", at={"a": start}, starts=1, between=(-4.0, 4.0), priors="all")
        assert found.estimate > 1.0
        assert found.maximum >= found.log_likelihood.max() - 1e-6


def test_a_jump_of_the_profile_ends_a_set():
    """The share leaps where a passes a threshold, 1.27 sds above the estimate: all equilibria are found, and the set ends there."""
    data = population(b=0.0)
    least = float(np.mean((data.shares[0, :, 0] - 0.5) / SIZE))
    threshold = least + 0.3

    class Cliff(Linear):
        def trajectories(self, latents, data=None, key=None):
            raw = {name: jnp.where(value > threshold, value + 50.0, value) for name, value in latents["raw"]["a"].items()}
            return super().trajectories({**latents, "raw": {"a": raw}}, data, key)

    found = profile(Cliff(data, {"a": bm.paths.Constant()}), "a", starts=1)
    for level, one in found.sets.items():
        ((low, high),) = one.intervals
        sd = SCALE / SIZE / np.sqrt(2 * TIMES.size)
        assert high == pytest.approx(threshold, abs=2e-3 * sd) and not one.open_above
        assert low == pytest.approx(least - sd * np.sqrt(chi2.ppf(level, 1)), abs=2e-3 * sd)
    assert found.ends[1] == "the level was reached" and found.failed_solves == 0
    assert "the profile jumps" in found.warnings[0]


def test_an_end_that_is_not_found_is_said_to_be_uncertain(linear):
    """Between 1.5 and 2.5 sds nothing is found: the set reaches to the far side, and the level is told to be crossed in between."""
    target, asked = Target(linear, ()), quantity(linear, "a")
    mean, covariance = posterior(population())
    free = np.linalg.inv(np.linalg.inv(covariance) - np.eye(2))
    top = free @ np.linalg.inv(covariance) @ mean
    value, _, curvature = target(top)
    walk = _Walk(target, asked, Held(top, value, 0.0, curvature), 50)
    begin, sd, hold = walk.rows[0][0], walk.sd, walk.hold
    walk.rows.append((begin + 3 * sd, hold(walk.rows[0][1], begin + 3 * sd)))
    walk.hold = lambda near, place: None if 1.5 < (place - begin) / sd < 2.5 else hold(near, place)
    (place,), (pair,) = walk.cross(1.96)
    low, high = (np.array(pair) - begin) / sd
    assert 1.3 < low <= 1.5 and 2.5 <= high < 2.7 and place == pair[1]


def test_a_range_that_was_not_looked_through_says_so(linear, monkeypatch):
    monkeypatch.setattr(bm.inference.profile_scan, "MOST_WIDE", 4)
    found = profile(linear, "a", between=(-40.0, 40.0), starts=1)
    assert not found.sets[0.9].open_above
    assert sum("was not looked through: 4 steps were not enough" in said for said in found.warnings) == 2


def test_a_maximum_at_the_edge_of_what_an_unknown_can_be():
    """The best value is zero, which a logarithm never reaches: the set is open there and ends where a parabola cut at zero ends."""
    data = population(a=-1.0, b=0.0)
    best, sd = np.mean((data.shares[0, :, 0] - 0.5) / SIZE), SCALE / SIZE / np.sqrt(2 * TIMES.size)
    positive = Linear(data, {"a": bm.paths.Constant(prior=dist.LogNormal(0.0, 1.0))})
    found = profile(positive, "a", starts=2)
    for level, one in found.sets.items():
        assert one.open_below and not one.open_above and len(one.intervals) == 1
        assert one.intervals[0][1] == pytest.approx(best + np.sqrt(best**2 + sd**2 * chi2.ppf(level, 1)), rel=0.01)
    assert found.maximum == found.log_likelihood.max()
    between = Linear(population(a=3.0, b=0.0), {"a": bm.paths.Constant(prior=dist.Uniform(0.0, 1.0))})
    found = profile(between, "a", starts=1)
    assert found.sets[0.95].open_above and not found.sets[0.95].open_below
    assert any("comes to an end of its support, 0 to 1" in said for said in found.warnings)


def square_of_a(values):
    return values["a"] ** 2


def test_values_that_no_unknowns_have_are_no_missing_equilibria():
    """A square below zero: no solve failed."""
    found = profile(Linear(population(a=0.1, b=0.0), {"a": bm.paths.Constant()}), square_of_a, starts=1)
    assert found.sets[0.95].open_below and found.failed_solves == 0
    assert "no unknowns that give the quantity a value were found beyond" in found.ends[0]


def test_a_maximum_that_was_not_reached_is_told_once(linear):
    found = profile(linear, "a", starts=1)
    assert found.left < 1e-3 and found.warnings == ()
    (said,) = dataclasses.replace(found, left=0.5).warnings
    assert "ended 0.5 sds before it" in said and "too wide" in said
    side = types.SimpleNamespace(left=np.array([1.0, 0.0, 0.3]))
    assert unsettled(side, side) == 2


def test_executors_give_what_one_after_the_other_gives(linear):
    alone = profiles(linear, ["a", "b"])
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        together = profiles(linear, ["a", "b"], executor=pool)
    for name, one in alone.items():
        np.testing.assert_array_equal(one.values, together[name].values)
        np.testing.assert_array_equal(one.log_likelihood, together[name].log_likelihood)
    job = _Job(squared, 0, 1, LEVELS, None, (), Held(np.zeros(1), 0.0, 0.0, np.eye(1)), 5)
    assert ForkingPickler.loads(ForkingPickler.dumps(job)).asked is squared


def test_the_result_in_words_numbers_and_a_picture(game, tmp_path):
    found = profile(game, "gamma", starts=2)
    assert isinstance(found, Profile)
    assert found.sentence.startswith("gamma: 1.") and "maximum of the likelihood; 90 % confidence set [" in found.sentence
    assert list(found.table().index) == [0.9, 0.95]
    low, high = found.sets[0.9].intervals[0]
    assert tuple(found.table().loc[0.9, ["low", "high"]]) == (low, high) and low < found.estimate < high
    root = ET.parse(found.plot(tmp_path / "profile.svg")).getroot()
    assert root.tag.endswith("svg") and "profile log likelihood" in ET.tostring(root, encoding="unicode")
    kept = profile(game, "gamma", priors="all", starts=2)
    assert "the likelihood times the priors of gamma and noise" in kept.sentence


@pytest.mark.parametrize(
    ("asked", "options", "words"),
    [
        ("delta", {}, "'delta' is no unknown of this model; gamma and noise can be profiled"),
        (("gamma", 1.0), {}, "does not vary in time; time is 1.0"),
        (Value("gamma", entry=(0,)), {}, r"has the shape \(\) at one time; entry is \(0,\)"),
        (Value("gamma", trajectory="1"), {}, "trajectory is '1'; none, for it is the same in all, is needed"),
        (3, {}, "quantity is 3; a name, a Value or a function"),
        (lambda v: v["mu"], {}, "asks for 'mu'; gamma and noise can be told without an equilibrium"),
        (lambda v: jnp.ones(2) * v["gamma"], {}, r"has shape \(2,\); one number is needed"),
        (lambda v: 0.0 * v["gamma"], {}, "does not move with the unknowns"),
        ("gamma", {"levels": 1.5}, "levels is 1.5; numbers between 0 and 1"),
        ("gamma", {"levels": "x"}, "levels is 'x'; numbers between 0 and 1"),
        ("gamma", {"priors": "none"}, 'priors is \'none\'; "paths", "all" or a list of gamma and noise'),
        ("gamma", {"priors": ["beta"]}, "priors is"),
        ("gamma", {"between": (2.0, 1.0)}, r"between is \(2.0, 1.0\); two rising values inside \(0, inf\)"),
        ("gamma", {"between": 3}, "between is 3; a smallest and a largest value"),
        ("gamma", {"starts": 0}, "starts is 0; a whole number of at least 1"),
        ("gamma", {"max_steps": True}, "max_steps is True"),
    ],
)
def test_what_does_not_fit_is_refused(game, asked, options, words):
    with pytest.raises(InputError, match=words):
        profile(game, asked, **options)


def test_what_cannot_be_profiled_is_refused(game, wavy):
    with pytest.raises(InputError, match="'a' varies in time; give the time, from 0 to 1"):
        profile(wavy, "a")
    with pytest.raises(InputError, match=r"time is 2\.0; a number from 0 to 1"):
        profile(wavy, ("a", 2.0))
    with pytest.raises(InputError, match="each needs a name of its own"):
        profiles(game, ["gamma", "gamma"])
    with pytest.raises(InputError, match=r"between is \(5.0, 6.0\); a range that holds"):
        profile(wavy, "b", between=(5.0, 6.0), starts=1)
    with pytest.raises(InputError, match="quantities is 'gamma'"):
        profiles(game, "gamma")
    with pytest.raises(InputError, match="model is str"):
        profile("gamma", "gamma")
    with jax.enable_x64(False), pytest.raises(InputError, match="double precision"):
        profile(game, "gamma")
    with pytest.raises(FitError, match="no start reached"):
        profile(Linear(population(), limit=-50.0), "a")


def test_pooled_constants_are_told_apart_by_trajectory():
    """Two constants that share nothing are numbers, without a prior; where they scatter around a shared one they keep it."""
    data = simulated(noise="dirichlet", size=NOISE, seed=1)
    apart = calibration(data, gamma=bm.paths.Pooled(bm.paths.Constant(), pooling="separate"))
    assert _kept(apart, "paths") == ()
    for name, coordinate in (("1", 0), ("2", 1)):
        _, slope, _ = quantity(apart, Value("gamma", trajectory=name)).constraint(apart.data)(np.zeros(2))
        np.testing.assert_array_equal(slope != 0, np.arange(2) == coordinate)
    swapped = apart.with_population(simulated(noise="dirichlet", size=NOISE, seed=1, trajectories=("2", "1")))
    _, slope, _ = quantity(swapped, Value("gamma", trajectory="1")).constraint(swapped.data)(np.zeros(2))
    np.testing.assert_array_equal(slope != 0, [False, True])
    with pytest.raises(InputError, match="trajectory is None; one of 1 and 2 is needed"):
        profile(apart, "gamma")
    assert _kept(calibration(data, gamma=bm.paths.Pooled(bm.paths.Constant())), "paths") == ("gamma",)


def test_usual_quantities_are_numbers_and_then_paths_along_the_horizon(game, wavy):
    """Each can be profiled; of pooled constants every trajectory's; not what is known, nor what depends on a population."""
    data = simulated(noise="dirichlet", size=NOISE, seed=1)
    apart = calibration(data, gamma=bm.paths.Pooled(bm.paths.Constant(), pooling="separate"))
    together = calibration(data, gamma=bm.paths.Pooled(GP))
    felt = calibration(data, gamma=bm.paths.Neural(input=("time", "population")))
    end = float(game.grid.times[-1])
    times = [0.25 * end, 0.5 * end, 0.75 * end]
    ends = [Value("a", t) for t in np.quantile([wavy.grid.times[0], wavy.grid.times[-1]], [0.25, 0.5, 0.75])]
    for model, wanted in (
        (game, [Value("gamma"), Value("noise")]),
        (wavy, [Value("b"), *ends]),
        (apart, [Value("gamma", trajectory="1"), Value("gamma", trajectory="2")]),
        (together, [Value("gamma", t, trajectory=name) for t in times for name in ("1", "2")]),
        (felt, []),
        (Linear(population(), {"a": bm.paths.Constant(), "b": bm.paths.Constant(prior=2.0)}), [Value("a")]),
    ):
        found = usual_quantities(model)
        assert [str(value) for value in found] == [str(value) for value in wanted]
        assert all(quantity(model, value).name == str(value) for value in found)


@pytest.mark.long
@pytest.mark.slow
def test_sets_cover_at_their_level():
    """Gamma, with the noise unknown, over 200 data sets; a right procedure fails one of the two bounds with a probability of 1 %.

    The bounds are those of a binomial at three standard errors (0.64 % each at 90 %): a coverage of 0.80 at 90 % is found with a probability of 0.97.
    """
    from benchmarks.profiles import rates, study

    rows = study("lq", 200)
    assert not any("error" in row for row in rows)
    assert all(row[name]["odd"] == 0 and row[name]["failed"] == 0 for row in rows for name in ("gamma", "noise"))
    for shares in rates("lq", rows).values():
        for level, share in shares.items():
            nominal = float(level)
            assert abs(share - nominal) <= 3.0 * np.sqrt(nominal * (1 - nominal) / len(rows))
