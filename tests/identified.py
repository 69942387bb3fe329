"""Small models whose unknowns theory knows to be identified or not, which the tests of identifiability share.

The record of a model does not enter its expected information, so that simulated data stand only for times, sizes and starts.
"""

import functools

import numpy as np
import numpyro.distributions as dist

from bayes_mfg.data import Population, simulate
from bayes_mfg.equilibrium import TimeGrid
from bayes_mfg.games import SIR, BikeShare, Cybersecurity, ElFarol, Emissions, ForwardDynamics, LinearQuadratic, MeetingArrival
from bayes_mfg.models import Binomial, Calibration, Dirichlet, Gaussian
from bayes_mfg.paths import GaussianProcess
from bayes_mfg.reproduce.systems import VIRUS

STARTS = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
SEEDED = np.array([[0.95, 0.05, 0.0], [0.7, 0.3, 0.0]])


def about(value, sd=1.0):
    """A positive prior with this median."""
    return dist.LogNormal(np.log(value), sd)


def flat(states, points, horizon, starts):
    """Data that only say when and from where: even shares."""
    times = np.linspace(0.0, horizon, points)
    shares = np.full((len(starts), points, len(states)), 1.0 / len(states))
    return Population(times, proportions=shares, states=list(states))


def calibration(game, paths, starts, *, noise=1e-4, horizon=2.0, points=11, observation=None, initial=None, **options):
    data = flat(game.state_names, points, horizon, starts)
    known = starts if initial is None else initial
    options = {"method": "newton", **options}  # half of what the automatic choice takes to compile
    return Calibration(game, data, paths, observation or Dirichlet(noise=noise), initial=known, substeps=1, **options)


def lq(paths, **options):
    return calibration(LinearQuadratic(), paths, STARTS, **options)


@functools.cache
def sir(counts=2000, points=21, horizon=20.0, states=("I",), game=None, **paths):
    game = game or SIR()
    truth = {"beta": 0.6, "recovery": 0.15}
    data = simulate(SIR(), truth, SEEDED, TimeGrid(horizon, points), noise="multinomial", size=counts)
    return Calibration(game, data, dict(paths), Binomial(states=list(states)), initial=SEEDED, substeps=1, method="newton")


COSTS = {
    "gamma": about(1.5),
    "terminal_slope": about(5.0),
    "congestion": about(0.1),
    "terminal_congestion": about(1.0),
}
VULNERABLE = np.array([[0.0, 0.0, 0.3, 0.7], [0.0, 0.0, 0.8, 0.2]])
MIXED = np.array([[0.1, 0.4, 0.1, 0.4], [0.3, 0.3, 0.2, 0.2]])


def lq_gamma():
    return lq({"gamma": about(1.5)})


def lq_costs():
    return lq(COSTS)


def lq_uneven():
    return lq({"gamma": about(1.5, 3.0), "control_weight": about(1.0, 0.8)})


def lq_combined():
    """gamma is known: all costs up and the weight of the control as much down is what is left of two declared changes."""
    costs = {name: prior for name, prior in COSTS.items() if name != "gamma"}
    return lq({"gamma": 1.5, "control_weight": about(1.0), "destination_congestion": 0.5, **costs})


def lq_crowding():
    return lq({"gamma": 1.5, "congestion": about(0.1), "terminal_slope": about(5.0)}, noise=0.1)


def lq_noise():
    return lq({"gamma": about(1.5)}, observation=Gaussian(scale=about(0.01)))


def lq_path():
    return lq({"gamma": GaussianProcess(length_scale=0.5, level_scale=0.2)}, points=21)


def sir_rates():
    return sir(beta=about(0.6), recovery=about(0.15))


def sir_costs():
    return sir(contact_cost=about(1.0), infection_cost=about(0.5), beta=0.6, recovery=0.15)


def sir_flow():
    return sir(game=ForwardDynamics(SIR()), beta=about(0.6), recovery=0.15, infection_cost=about(0.1))


def sir_outset():
    """As `sir_early`, of another epidemic."""
    return sir_early(0.6, 0.15)


def sir_early(beta=0.5, recovery=0.2):
    """A few infected among very many: until the epidemic bends, only beta - recovery is seen in their number."""
    starts = np.array([[0.9999, 0.0001, 0.0]])
    times = np.linspace(0.0, 8.0, 9)
    size = 10_000_000
    counts = np.round(size * np.stack([1.0 - 1e-4 * np.exp(0.3 * times), 1e-4 * np.exp(0.3 * times), 0 * times], axis=-1)).astype(
        int
    )
    counts[:, 2] = size - counts[:, 0] - counts[:, 1]
    counts[:, 0] += np.minimum(counts[:, 2], 0)
    data = Population(times, counts=np.maximum(counts, 0), totals=np.maximum(counts, 0).sum(axis=1), states=["S", "I", "R"])
    paths = {"beta": about(beta, 0.5), "recovery": about(recovery, 0.5)}
    return Calibration(ForwardDynamics(SIR()), data, paths, Binomial(states=["I"]), initial=starts, substeps=2, method="newton")


def cyber_attack():
    unknown = {**VIRUS, "q_inf_D": about(0.4), "q_inf_U": about(0.3), "attack_intensity": about(0.6)}
    return calibration(Cybersecurity(temperature=0.3), unknown, MIXED, horizon=5.0)


def cyber_undefended():
    """Nobody is defended, and nobody can switch."""
    unknown = {**VIRUS, "beta_DD": about(0.4), "q_rec_U": about(0.4)}
    return calibration(
        Cybersecurity(temperature=0.3, switch_rate=0.0), unknown, VULNERABLE, horizon=5.0, observation=Gaussian(scale=0.01)
    )


def bike_ends():
    paths = {"base_rate": 1.0, "terminal_cost": dist.Normal(0.0, 1.0)}
    return calibration(BikeShare(3), paths, STARTS, horizon=1.0)


def bar_costs():
    game = ElFarol(width=0.2)
    paths = {"threshold": 0.5, "crowding": about(3.0), "regret": about(2.0), "switching_cost": about(0.5)}
    return calibration(game, paths, np.array([[0.9, 0.1], [0.2, 0.8]]), noise=1e-5)


def bar_quiet():
    """The bar stays more than ten widths below its threshold."""
    paths = {"threshold": 0.95, "crowding": about(1.0), "regret": about(0.2), "switching_cost": 5.0}
    return calibration(ElFarol(width=0.01), paths, np.array([[0.9, 0.1]]), horizon=1.0)


def one_fine():
    game = Emissions(5, cap=1.5, variant="deterrent")
    starts = np.array([[0.0, 1.0, 0.0, 0.0, 0.0]])
    return calibration(game, {"price": about(0.8), "sharpness": about(1.0)}, starts, observation=Gaussian(scale=1e-3))


def always_late():
    game = MeetingArrival(4, schedule=-5.0, width=0.3)
    paths = {"quorum": 0.4, "lateness": about(2.0), "absence": about(1.5), "waiting": about(1.0)}
    starts = np.array([[0.1, 0.2, 0.3, 0.4], [0.05, 0.6, 0.25, 0.1]])
    return calibration(game, paths, starts, horizon=1.5, observation=Gaussian(scale=1e-4))
