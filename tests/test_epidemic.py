"""Protects the simulated epidemic: neighbours are all neighbours, steps follow the stated rules, and its data are fit to use."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes_mfg.data import simulate_epidemic
from bayes_mfg.data.epidemic import (
    INFECTIOUS,
    RECOVERED,
    SUSCEPTIBLE,
    Agents,
    Chance,
    Rules,
    begin,
    cells_per_side,
    chance,
    count,
    epidemics,
    neighbours,
    seeds_of,
    step,
)
from bayes_mfg.errors import DataError

RULES = Rules(
    agents=200,
    steps=30,
    box=3.0,
    radius=0.2,
    infection=0.3,
    duration=14,
    step_lengths=(0.02, 0.01, 0.02),
    avoid=False,
    avoidance_radius=0.4,
    avoidance_factor=1.0,
)


def all_pairs(
    x: np.ndarray, y: np.ndarray, seen: np.ndarray, asking: np.ndarray, radius: float, box: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of `seen` agents within the radius of each that asks, and the sums of the displacements to them."""
    dx, dy = (a[None, :] - a[:, None] for a in (x, y))
    dx, dy = dx - box * np.round(dx / box), dy - box * np.round(dy / box)
    near = (dx**2 + dy**2 <= radius**2) & seen[None, :] & asking[:, None]
    return near.sum(axis=1), np.where(near, dx, 0).sum(axis=1), np.where(near, dy, 0).sum(axis=1)


def slow_step(agents: Agents, draws: Chance, rules: Rules) -> Agents:
    """One step in plain NumPy, agent by agent, from all pairs."""
    x, y, state, age = (np.array(a) for a in agents)
    heading, luck = (np.asarray(a) for a in draws)
    near, _, _ = all_pairs(x, y, state == 1, state == 0, rules.radius, rules.box)
    _, ahead_x, ahead_y = all_pairs(x, y, state == 1, state == 0, rules.avoidance_radius, rules.box)
    new = [a.copy() for a in (x, y, state, age)]
    for n in range(rules.agents):
        length = rules.step_lengths[state[n]]
        move = length * np.array([np.cos(2 * np.pi * heading[n]), np.sin(2 * np.pi * heading[n])])
        far = np.hypot(ahead_x[n], ahead_y[n])
        if rules.avoid and state[n] == 0 and far > 0:
            move = -rules.avoidance_factor * length * np.array([ahead_x[n], ahead_y[n]]) / far
        new[0][n], new[1][n] = (x[n] + move[0]) % rules.box, (y[n] + move[1]) % rules.box
        new[3][n] = age[n] + 1
        if state[n] == 0 and luck[n] < 1 - (1 - rules.infection) ** near[n]:
            new[2][n], new[3][n] = 1, 0
        elif state[n] == 1 and age[n] + 1 >= rules.duration:
            new[2][n] = 2
    return Agents(*new)


def scattered(kind: str, n: int, box: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    if kind == "uniform":
        x, y = box * rng.random((2, n))
    elif kind == "clumped":  # around two points, one of them a corner, where four edges meet
        x, y = np.where(rng.random(n) < 0.5, 0.0, 0.37 * box) + 0.03 * box * rng.standard_normal((2, n))
    else:  # on the lines between cells, at no distance that is exactly a radius, and at the very edge
        x, y = rng.choice(np.append(np.linspace(0, box, 49, endpoint=False), np.nextafter(box, 0)), size=(2, n))
    return x % box % box, y % box % box


@pytest.mark.parametrize("kind", ["uniform", "clumped", "lattice"])
@pytest.mark.parametrize(
    ("box", "radius", "reach"),
    [(10.0, 0.2, None), (10.0, 0.2, 0.4), (10.0, 0.4, 0.1), (1.0, 0.3, None), (1.0, 0.45, 0.5), (1.0, 0.5, None)],
    ids=str,
)
def test_neighbours_by_cells_are_those_of_all_pairs(kind: str, box: float, radius: float, reach: float | None) -> None:
    """Exactly, wherever agents are: in one cell, across the edge, on a torus of one, two or three cells to a side."""
    rng = np.random.default_rng(0)
    look = jax.jit(neighbours, static_argnames=("radius", "box", "reach"))
    for _ in range(3):
        x, y = scattered(kind, 400, box, rng)
        seen, asking = rng.random((2, 400)) < 0.5
        found, ahead = look(*map(jnp.asarray, (x, y, seen, asking)), radius=radius, box=box, reach=reach)
        np.testing.assert_array_equal(found, all_pairs(x, y, seen, asking, radius, box)[0])
        assert np.asarray(found).max() > 1
        if reach is not None:
            for part, expected in zip(ahead, all_pairs(x, y, seen, asking, reach, box)[1:], strict=True):
                np.testing.assert_allclose(part, expected, atol=1e-11 * box)


def test_cells_are_wider_than_the_radius_and_not_more_than_agents() -> None:
    assert cells_per_side(12_000, 0.2, 10.0) == 49
    assert cells_per_side(150, 0.2, 10.0) == 13
    assert [cells_per_side(400, radius, 1.0) for radius in (0.3, 0.45, 0.5)] == [3, 2, 1]


@pytest.mark.parametrize("avoid", [False, True], ids=["walk", "avoid"])
def test_an_epidemic_is_that_of_plain_loops_over_all_pairs(avoid: bool) -> None:
    """From the same random numbers, agent by agent at each step, and the counts of the whole."""
    rules = dataclasses.replace(RULES, avoid=avoid, avoidance_factor=0.7)
    keys = seeds_of(3, 2)
    whole = np.asarray(epidemics(keys, rules))
    fast_step = jax.jit(step, static_argnames="rules")
    for key, counts in zip(keys, whole, strict=True):
        slow = fast = begin(jax.random.fold_in(key, 0), rules)
        np.testing.assert_array_equal(count(slow), counts[0])
        for n in range(1, rules.steps + 1):
            draws = chance(jax.random.fold_in(key, n), rules)
            slow, fast = slow_step(slow, draws, rules), fast_step(fast, draws, rules=rules)
            np.testing.assert_array_equal(fast.state, slow.state)
            np.testing.assert_array_equal(fast.age, slow.age)
            for a, b in zip(fast[:2], slow[:2], strict=True):
                np.testing.assert_allclose((np.asarray(a) - b + 1) % rules.box, 1, atol=1e-9)
            np.testing.assert_array_equal(counts[n], np.bincount(slow.state, minlength=3))
        assert counts[0, 0] - counts[-1, 0] > 10


def test_recovery_comes_after_exactly_the_duration() -> None:
    """Two agents at one place, infection certain: infected in step 1, infectious in the records 1 to 14, recovered in record 15."""
    rules = dataclasses.replace(RULES, agents=3, infection=1.0)
    agents = Agents(jnp.ones(3), jnp.ones(3), jnp.array([0, 1, 2], jnp.int32), jnp.array([9, 0, 9], jnp.int32))
    fast_step = jax.jit(step, static_argnames="rules")
    states = [agents.state]
    for n in range(16):
        agents = fast_step(agents, chance(jax.random.key(n), rules), rules=rules)
        states.append(agents.state)
    first, second, third = np.array(states).T
    np.testing.assert_array_equal(first, [SUSCEPTIBLE] + [INFECTIOUS] * 14 + [RECOVERED] * 2)
    np.testing.assert_array_equal(second, [INFECTIOUS] * 14 + [RECOVERED] * 3)
    assert np.all(third == RECOVERED)


def test_steps_have_their_lengths_and_all_directions() -> None:
    rules = dataclasses.replace(RULES, agents=3000)
    agents = begin(jax.random.key(0), rules)
    later = step(agents, chance(jax.random.key(1), rules), rules)
    dx, dy = ((np.asarray(b) - np.asarray(a) + 1) % rules.box - 1 for a, b in zip(agents[:2], later[:2], strict=True))
    np.testing.assert_allclose(np.hypot(dx, dy), np.array([0.02, 0.01, 0.02])[agents.state], rtol=1e-9)
    angle = np.arctan2(dy, dx)
    # Means of cos and sin over 3,000 directions; 5 standard errors, false alarms below 1e-5.
    assert max(abs(np.cos(angle).mean()), abs(np.sin(angle).mean())) < 5 * np.sqrt(0.5 / 3000)


def test_starts_are_spread_as_stated() -> None:
    """Means over 400 starts of numbers uniform on 1..50 and 0..50, ages on 0..13 and positions; 5 standard errors each, false alarms below 1e-5."""
    rules = dataclasses.replace(RULES, agents=150, box=10.0)
    agents = jax.jit(jax.vmap(lambda key: begin(key, rules)))(seeds_of(0, 400))
    state = np.asarray(agents.state)
    i, r = (state == INFECTIOUS).sum(axis=1), (state == RECOVERED).sum(axis=1)
    assert (i.min(), i.max()) >= (1, 45) and i.max() <= 50 and r.min() >= 0 and r.max() <= 50
    assert abs(i.mean() - 25.5) < 5 * 14.5 / 20 and abs(r.mean() - 25) < 5 * 14.8 / 20
    age = np.asarray(agents.age)[state == INFECTIOUS]
    assert abs(age.mean() - 6.5) < 5 * 4.1 / np.sqrt(age.size) and set(age) == set(range(14))
    for a in agents[:2]:
        assert abs(np.asarray(a).mean() - 5) < 5 * 10 / np.sqrt(12 * a.size) and a.min() >= 0 and a.max() < 10


def test_counts_are_those_of_an_epidemic() -> None:
    population = simulate_epidemic(agents=600, trajectories=6, box=5.0)
    counts, totals = population.counts, population.totals
    assert counts is not None and counts.shape == (6, 101, 3) and totals is not None and np.all(totals == 600)
    assert np.all(counts.sum(axis=-1) == 600)
    assert np.all(np.diff(counts[..., 0], axis=1) <= 0) and np.all(np.diff(counts[..., 2], axis=1) >= 0)
    assert len({tuple(row) for row in counts[:, 0]}) == 6  # each has a start of its own
    np.testing.assert_allclose(population.times, np.linspace(0, 20, 101))
    assert population.states == ("S", "I", "R") and population.trajectories == ("1", "2", "3", "4", "5", "6")
    kept = population.provenance
    assert (kept["agents"], kept["seed"], kept["radius"], kept["avoid"], kept["horizon"]) == (600, 0, 0.2, False, 20.0)


def test_the_seed_decides_and_trajectories_do_not_depend_on_their_number() -> None:
    options: dict[str, Any] = {"agents": 300, "box": 4.0, "steps": 30}
    one, same, more, other = (
        simulate_epidemic(**options, seed=seed, trajectories=number).counts for seed, number in ((5, 3), (5, 3), (5, 4), (6, 3))
    )
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(one, more[:3])
    assert not np.array_equal(one, other)


def test_the_largest_seed_is_taken_in_both_precisions() -> None:
    for wide in (True, False):
        with jax.enable_x64(wide):
            population = simulate_epidemic(agents=60, trajectories=2, steps=20, box=2.0, seed=2**32 - 1)
        assert population.counts is not None and np.all(population.counts.sum(axis=-1) == 60)
        assert population.provenance["precision"] == ("float64" if wide else "float32")


def test_avoidance_lowers_the_attack_rate() -> None:
    """Shares of the first susceptible that were ever infected, over 40 and 40 trajectories of other seeds. At 4 standard errors, a rule without
    effect would pass with a probability of 3e-5; with these seeds the difference (0.74 and 0.48) is 6.6 of them."""
    attack = {}
    for avoid in (False, True):
        counts = simulate_epidemic(agents=800, trajectories=40, box=10 / np.sqrt(3), avoid=avoid, seed=int(avoid)).counts
        assert counts is not None
        attack[avoid] = 1 - counts[:, -1, 0] / counts[:, 0, 0]
    gain = attack[False].mean() - attack[True].mean()
    assert gain > 4 * np.sqrt(sum(a.var(ddof=1) / a.size for a in attack.values()))


@pytest.mark.parametrize("avoid", [False, True], ids=["walk", "avoid"])
def test_memory_is_linear_in_the_number_of_agents(avoid: bool) -> None:
    """Of the compiled program; all pairs would grow 64-fold."""
    used = []
    for agents in (1500, 12_000):
        rules = dataclasses.replace(RULES, agents=agents, steps=100, box=10.0, avoid=avoid)
        used.append(epidemics.lower(seeds_of(0, 20), rules).compile().memory_analysis().temp_size_in_bytes)
    assert used[0] > 0 and used[1] < 12 * used[0]
    assert used[1] < 12_000 * 1000  # bytes


BAD: list[tuple[dict[str, Any], str]] = [
    ({"agents": 2}, "agents is 2; expected a whole number of at least 3"),
    ({"agents": 150.0}, "agents is 150.0; expected a whole number"),
    ({"trajectories": 0}, "trajectories is 0"),
    ({"steps": True}, "steps is True"),
    ({"duration": 0}, "duration is 0"),
    ({"seed": -1}, "seed is -1"),
    ({"seed": 2**32}, "4294967295"),
    ({"avoid": "yes"}, "avoid is 'yes'; expected True or False"),
    ({"horizon": 0.0}, "horizon is 0.0; expected a positive number"),
    ({"box": float("nan")}, "box is nan"),
    ({"box": 10**400}, "expected a positive number"),
    ({"radius": 5.1}, "radius is 5.1; expected a positive number of at most 5, half the box"),
    ({"avoidance_radius": -0.1}, "avoidance_radius is -0.1"),
    ({"infection": 1.5}, "infection is 1.5; expected a probability"),
    ({"infection": "high"}, "infection is 'high'"),
    ({"step_lengths": (0.1, 0.1)}, "three numbers of at least 0"),
    ({"step_lengths": (0.1, -0.1, 0.1)}, "three numbers of at least 0"),
    ({"step_lengths": 0.1}, "three numbers of at least 0"),
    ({"avoidance_factor": -1}, "avoidance_factor is -1"),
]


@pytest.mark.parametrize(("options", "fragment"), BAD, ids=[str(sorted(o)) + f[:30] for o, f in BAD])
def test_bad_arguments_are_refused(options: dict[str, Any], fragment: str) -> None:
    with pytest.raises(DataError) as caught:
        simulate_epidemic(**options)
    assert fragment in str(caught.value)
