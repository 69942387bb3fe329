"""Observation models: how a population `mu` becomes what was recorded.

Each takes the equilibrium's shares at the observed times, `(R, T, d)`, and gives a NumPyro distribution for the recorded numbers, with a mask
for everything that was not seen. Scales and concentrations are numbers or NumPyro distributions (then they are inferred).
"""

import abc
import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.paths.base import describe
from bayes_mfg.paths.priors import amount, check_amount

from .simplex import SimplexNormal, SimplexWalk

FLOOR = 1e-10
"""Shares below this are raised to it inside likelihoods: a state that the model holds empty then costs much, not infinitely much."""


class Record(NamedTuple):
    """What an observation model compares with: a pytree of arrays.

    Attributes
    ----------
    values : recorded numbers, `(R, T, k)`; neutral where masked.
    mask : what counts, of the distribution's batch shape: `(R, T, k)` or `(R, T)`.
    totals : sizes behind counts, `(R, T)`; ones where unknown.
    """

    values: Array
    mask: Array
    totals: Array


class Clock(NamedTuple):
    """When the rows of a record were seen.

    Attributes
    ----------
    elapsed : times since the start `(T,)`.
    from_start : whether the populations at the start are the first rows themselves, without error.
    """

    elapsed: Array
    from_start: bool


class Observation(eqx.Module):
    """An observation model. `states` are those it looks at; `variable` is the name of the record in fits."""

    @property
    @abc.abstractmethod
    def variable(self) -> str:
        """What the record holds: "counts" or "proportions"."""

    @property
    def priors(self) -> dict[str, dist.Distribution]:
        """Own unknowns: name -> prior."""
        return {}

    def drawn(self, count: int) -> dict[str, dist.Distribution]:
        """Own unknowns with their priors, as they are drawn where the record has `count` columns."""
        return self.priors

    @abc.abstractmethod
    def columns(self, population: Population) -> tuple[str, ...]:
        """Names of the states of the record's last axis, of length `k`."""

    @abc.abstractmethod
    def record(self, population: Population) -> Record:
        """Check that the population suits this model and bring it into arrays.

        Raises
        ------
        InputError : when it does not; the sentence names the place.
        """

    @abc.abstractmethod
    def distribution(
        self, mu: Array, totals: Array, own: Mapping[str, Array], index: np.ndarray, clock: Clock | None = None
    ) -> dist.Distribution:
        """Distribution of the record given shares `mu (R, T, d)`, totals `(R, T)`, own unknowns, the observed states' numbers, and times.

        Only errors that persist look at the times; where they are needed and not given, an `InputError`.
        """

    @property
    def persists(self) -> bool:
        """Whether errors at different times of a trajectory depend on one another; densities of rows are then given the rows before."""
        return False

    def index(self, population: Population) -> np.ndarray:
        """Numbers of the observed states, `(k,)`."""
        return np.array([population.states.index(s) for s in self.columns(population)])

    def remarks(self, population: Population) -> list[str]:
        """Sentences on what a user of this model on these data must know; they become warnings of the fit."""
        return []

    @property
    def words(self) -> str:
        """One line for reports."""
        return in_words(self)


def in_words(module: eqx.Module) -> str:
    """Kind, states and settings; `~` stands before a prior."""
    parts = [type(module).__name__]
    settings = []
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        if field.name == "states":
            parts += [f"of {', '.join(value)}"] if value else []
        else:
            settings.append(f"{field.name} {'~' if isinstance(value, dist.Distribution) else '='} {describe(value)}")
    return " ".join([*parts, *([f"({', '.join(settings)})"] if settings else [])])


def _observed_states(population: Population, states: tuple[str, ...] | None, kind: str) -> tuple[str, ...]:
    if states is None:
        seen = population.mask.any(axis=(0, 1))
        return tuple(s for s, any_seen in zip(population.states, seen, strict=True) if any_seen)
    for s in states:
        if s not in population.states:
            raise InputError(f"{kind}: the data have no state {s!r}; they have {', '.join(population.states)}.")
        if not population.mask[..., population.states.index(s)].any():
            raise InputError(f"{kind}: state {s!r} is never observed in the data.")
    return states


def _as_tuple(states: Any) -> tuple[str, ...] | None:
    if states is None:
        return None
    if isinstance(states, str):
        raise InputError(f"states is {states!r}; a list of names is needed, such as [{states!r}].")
    if not isinstance(states, Iterable):
        raise InputError(f"states is {states!r}; a list of names is needed.")
    names = tuple(states)
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"states holds {name!r}; names are needed.")
    if not names or len(set(names)) != len(names):
        raise InputError(f"states is {list(names)}; at least one name is needed and none twice.")
    return names


class _Shares(Observation):
    """Models of proportions."""

    @property
    def variable(self) -> str:
        return "proportions"

    def columns(self, population: Population) -> tuple[str, ...]:
        return population.states

    def remarks(self, population: Population) -> list[str]:
        """How many individuals are behind a share is no part of these models."""
        if population.counts is None or population.totals is None or not (population.totals > 0).any():
            return []
        known = population.totals[population.totals > 0]
        if known.min() == known.max():  # one size: one sampling error, which the noise can hold
            return []
        return [
            f"{type(self).__name__} takes counts as shares and one noise for all of them, whatever their totals ({known.min()} to {known.max()}): "
            "Multinomial or DirichletMultinomial use the totals."
        ]


class Gaussian(_Shares):
    """Every recorded share is normal around the population's share.

    With a fixed `scale` its log density is the least-squares loss of arXiv 2606.23155 (`fit(..., method="point", objective="paper")` minimises
    that loss itself; a posterior mode has the prior beside it). Counts with totals are taken as shares.

    Parameters
    ----------
    scale : standard deviation of one share: a number, or a NumPyro prior on the positive numbers.
    """

    scale: Any = 0.01

    def __check_init__(self) -> None:
        check_amount(self.scale, "scale", "Gaussian")

    @property
    def priors(self) -> dict[str, dist.Distribution]:
        return {"scale": self.scale} if isinstance(self.scale, dist.Distribution) else {}

    def record(self, population: Population) -> Record:
        shares = np.nan_to_num(population.shares)
        return Record(jnp.asarray(shares), jnp.asarray(population.mask), jnp.ones(shares.shape[:2]))

    def remarks(self, population: Population) -> list[str]:
        d = population.n_states
        if not population.mask.all(axis=-1).any():
            return super().remarks(population)
        return [
            *super().remarks(population),
            f"Gaussian takes the {d} shares of a row as independent though they sum to one: where all are observed the evidence counts "
            f"{d}/{d - 1} times, and sds are too narrow by {100 * (1 - math.sqrt(1 - 1 / d)):.0f} %. SimplexGaussian takes them as they are.",
        ]

    def distribution(
        self, mu: Array, totals: Array, own: Mapping[str, Array], index: np.ndarray, clock: Clock | None = None
    ) -> dist.Distribution:
        return dist.Normal(mu[..., index], amount(self.scale, own, "scale"))


class SimplexGaussian(_Shares):
    """Shares are normal around the population's, with errors that sum to zero as those of shares do.

    `Gaussian` takes the shares of a row as independent: where all of them are observed it counts the evidence `d / (d - 1)` times. Here the errors
    are independent but for their sum: see `SimplexNormal`. A time counts where all states are observed. Shares near zero may have bands below it.

    Parameters
    ----------
    scale : standard deviation of an error before the sum is known, of `d` alike `sqrt(d / (d - 1))` times that of a share: a number, or a NumPyro
        prior on the positive numbers.
    by_state : whether every state has a scale of its own, each with this prior: where shares of some places are less certain than those of others
        by more than their size tells.
    persistence : time over which an error falls by a factor e where nothing new is added (see `SimplexWalk`), in the data's unit: a number, or a
        NumPyro prior on the positive numbers. By default errors at different times are independent, and where real ones are not - a day that is
        unlike other days is so for hours - the same evidence is counted many times, and posteriors are far too narrow. With it rows of a trajectory
        must be seen from the first time on without gaps, and from `initial="observed"` on errors grow from zero.
    """

    scale: Any = eqx.field(default_factory=lambda: dist.LogNormal(np.log(0.03), 1.0))
    by_state: bool = False
    persistence: Any = None

    def __check_init__(self) -> None:
        check_amount(self.scale, "scale", "SimplexGaussian")
        if not isinstance(self.by_state, bool):
            raise InputError(f"SimplexGaussian: by_state is {self.by_state!r}; True or False is needed.")
        if self.by_state and not isinstance(self.scale, dist.Distribution):
            raise InputError(f"SimplexGaussian: by_state needs a prior of the scale, which is {self.scale!r}, one number.")
        if self.persistence is not None:
            check_amount(self.persistence, "persistence", "SimplexGaussian")

    @property
    def persists(self) -> bool:
        return self.persistence is not None

    @property
    def priors(self) -> dict[str, dist.Distribution]:
        given = {"scale": self.scale, "persistence": self.persistence}
        return {name: value for name, value in given.items() if isinstance(value, dist.Distribution)}

    def drawn(self, count: int) -> dict[str, dist.Distribution]:
        priors = self.priors
        return {**priors, "scale": priors["scale"].expand((count,)).to_event(1)} if self.by_state else priors

    def record(self, population: Population) -> Record:
        rows = population.mask.all(axis=-1)
        if not rows.any():
            raise InputError(
                "SimplexGaussian: no time has all states observed; use Gaussian, or Binomial for counts of some states."
            )
        if self.persists:
            gaps = np.argwhere(rows[:, 1:] & ~rows[:, :-1])
            if gaps.size:
                r, t = gaps[0]
                raise InputError(
                    f"SimplexGaussian: errors that persist need all states at all times up to the last; trajectory {population.trajectories[r]!r} "
                    f"is seen at {population.times[t + 1]:g} and not in full at {population.times[t]:g}."
                )
        shares = np.where(rows[..., None], population.shares, 1.0 / population.n_states)
        return Record(jnp.asarray(shares), jnp.asarray(rows), jnp.ones(rows.shape))

    def distribution(
        self, mu: Array, totals: Array, own: Mapping[str, Array], index: np.ndarray, clock: Clock | None = None
    ) -> dist.Distribution:
        scale = jnp.asarray(amount(self.scale, own, "scale"))
        if not self.persists:
            return SimplexNormal(mu[..., index], scale)
        if clock is None:
            raise InputError("SimplexGaussian: errors that persist need the times of what was seen.")
        return SimplexWalk(mu[..., index], scale, amount(self.persistence, own, "persistence"), *clock)


class Dirichlet(_Shares):
    """Every recorded distribution is Dirichlet around the population, with concentration `1 / noise`: `Dirichlet(mu / noise)`.

    The variance of a share is `mu (1 - mu) noise / (1 + noise)`, as in the simulated data of arXiv 2606.23155. A time counts where all states
    are observed.

    Parameters
    ----------
    noise : a number, or a NumPyro prior on the positive numbers.
    """

    noise: Any = eqx.field(default_factory=lambda: dist.LogNormal(np.log(1e-3), 2.0))

    def __check_init__(self) -> None:
        check_amount(self.noise, "noise", "Dirichlet")

    @property
    def priors(self) -> dict[str, dist.Distribution]:
        return {"noise": self.noise} if isinstance(self.noise, dist.Distribution) else {}

    def record(self, population: Population) -> Record:
        rows = population.mask.all(axis=-1)
        if not rows.any():
            raise InputError("Dirichlet: no time has all states observed; use Gaussian, or Binomial for counts of some states.")
        shares = population.shares
        zeros = np.argwhere((shares <= 0) & rows[..., None])
        if zeros.size:
            r, t, x = zeros[0]
            raise InputError(
                f"Dirichlet: trajectory {population.trajectories[r]!r}, time {population.times[t]:g}, state {population.states[x]!r} has a "
                "share of 0, which a Dirichlet density cannot produce; use Gaussian, or Multinomial for counts."
            )
        shares = np.where(rows[..., None], shares, 1.0 / shares.shape[-1])
        return Record(jnp.asarray(shares), jnp.asarray(rows), jnp.ones(rows.shape))

    def distribution(
        self, mu: Array, totals: Array, own: Mapping[str, Array], index: np.ndarray, clock: Clock | None = None
    ) -> dist.Distribution:
        return dist.Dirichlet(jnp.maximum(mu, FLOOR) / amount(self.noise, own, "noise"))


class _Counts(Observation):
    """Models of counts, of all states or of some."""

    states: tuple[str, ...] | None = eqx.field(default=None, static=True, converter=_as_tuple, kw_only=True)

    @property
    def variable(self) -> str:
        return "counts"

    def columns(self, population: Population) -> tuple[str, ...]:
        return _observed_states(population, self.states, type(self).__name__)

    def _counts(self, population: Population) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Counts `(R, T, k)`, mask `(R, T, k)` and totals `(R, T)` of the observed states."""
        kind = type(self).__name__
        if population.counts is None or population.totals is None:
            raise InputError(f"{kind}: the data are proportions; counts with totals are needed (or use Gaussian or Dirichlet).")
        index = self.index(population)
        mask = population.mask[..., index]
        return np.where(mask, population.counts[..., index], 0), mask, np.maximum(population.totals, 0)


def _counted_twice(model: _Counts, population: Population) -> list[str]:
    """States that are independent in the model although their counts sum to the total are evidence counted more than once."""
    index = model.index(population)
    rows = int(population.mask[..., index].all(axis=-1).sum())
    if len(index) < population.n_states or not rows:
        return []
    return [
        f"{type(model).__name__} takes the counts of all {population.n_states} states as independent, though they sum to the total: "
        "the evidence is counted more than once, and bands are too narrow. Use Multinomial or DirichletMultinomial, or name some states."
    ]


class _MultinomialProbs(dist.MultinomialProbs):
    """NumPyro's, whose own `sample` needs totals that are known when it is compiled."""

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        return jax.random.multinomial(key, self.total_count, self.probs, shape=sample_shape + self.batch_shape).astype(int)


class Multinomial(_Counts):
    """Counts are multinomial over the states; with `states`, over these and the rest.

    A time counts where all of the states looked at are observed.

    Parameters
    ----------
    states : names of the states that are looked at; by default all that are observed.
    """

    def columns(self, population: Population) -> tuple[str, ...]:
        named = super().columns(population)
        if len(named) == population.n_states:
            return named
        rest = "other"
        while rest in population.states:
            rest += " states"
        return (*named, rest)

    def index(self, population: Population) -> np.ndarray:
        return np.array([population.states.index(s) for s in super().columns(population)])

    def record(self, population: Population) -> Record:
        counts, mask, totals = self._counts(population)
        rows = mask.all(axis=-1)
        if not rows.any():
            raise InputError("Multinomial: no time has all of its states observed; use Binomial.")
        if len(self.columns(population)) > counts.shape[-1]:
            counts = np.concatenate([counts, (totals - counts.sum(axis=-1))[..., None]], axis=-1)
        counts = np.where(rows[..., None], counts, 0)
        return Record(jnp.asarray(counts), jnp.asarray(rows), jnp.asarray(totals))

    @staticmethod
    def _shares(mu: Array, index: np.ndarray) -> Array:
        """Shares of the states looked at, and of the rest where there is one."""
        probs = mu[..., index]
        if len(index) < mu.shape[-1]:
            probs = jnp.concatenate([probs, 1.0 - probs.sum(axis=-1, keepdims=True)], axis=-1)
        probs = jnp.maximum(probs, FLOOR)
        return probs / probs.sum(axis=-1, keepdims=True)

    def distribution(
        self, mu: Array, totals: Array, own: Mapping[str, Array], index: np.ndarray, clock: Clock | None = None
    ) -> dist.Distribution:
        return _MultinomialProbs(self._shares(mu, index), totals.astype(int))


class _DirichletMultinomial(dist.DirichletMultinomial):
    """NumPyro's, whose own `sample` needs totals that are known when it is compiled."""

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        first, second = jax.random.split(key)
        probs = self._dirichlet.sample(first, sample_shape)
        return _MultinomialProbs(probs, self.total_count).sample(second)


class DirichletMultinomial(Multinomial):
    """Like Multinomial, with overdispersion: the shares themselves are Dirichlet around the population's, of given concentration.

    The variance of a count is the multinomial's times `1 + (n - 1) / (concentration + 1)`, as in `BetaBinomial`.

    Parameters
    ----------
    concentration : a number, or a NumPyro prior on the positive numbers; by default LogNormal(4, 1.5), the central 90 % from 5 to 640.
    states : names of the states that are looked at; by default all that are observed.
    """

    concentration: Any = eqx.field(default_factory=lambda: dist.LogNormal(4.0, 1.5))

    def __check_init__(self) -> None:
        check_amount(self.concentration, "concentration", "DirichletMultinomial")

    @property
    def priors(self) -> dict[str, dist.Distribution]:
        return {"concentration": self.concentration} if isinstance(self.concentration, dist.Distribution) else {}

    def distribution(
        self, mu: Array, totals: Array, own: Mapping[str, Array], index: np.ndarray, clock: Clock | None = None
    ) -> dist.Distribution:
        concentration = amount(self.concentration, own, "concentration")
        return _DirichletMultinomial(concentration * self._shares(mu, index), totals.astype(int))


class Binomial(_Counts):
    """The count of every state looked at is binomial in its share, states independent given the population.

    Parameters
    ----------
    states : names of the states that are looked at; by default all that are observed.
    """

    def remarks(self, population: Population) -> list[str]:
        return _counted_twice(self, population)

    def record(self, population: Population) -> Record:
        counts, mask, totals = self._counts(population)
        return Record(jnp.asarray(counts), jnp.asarray(mask), jnp.asarray(totals))

    def distribution(
        self, mu: Array, totals: Array, own: Mapping[str, Array], index: np.ndarray, clock: Clock | None = None
    ) -> dist.Distribution:
        probs = jnp.clip(mu[..., index], FLOOR, 1.0 - FLOOR)
        return dist.BinomialProbs(probs, totals.astype(int)[..., None])


class BetaBinomial(Binomial):
    """Like Binomial, with overdispersion: the share itself is Beta around the population's, of given concentration.

    The variance is the binomial's times `1 + (n - 1) / (concentration + 1)`. It absorbs what independent agents cannot explain: the same people
    seen repeatedly, uneven reporting.

    Parameters
    ----------
    concentration : a number, or a NumPyro prior on the positive numbers; by default LogNormal(4, 1.5), the central 90 % from 5 to 640.
    states : names of the states that are looked at; by default all that are observed.
    """

    concentration: Any = eqx.field(default_factory=lambda: dist.LogNormal(4.0, 1.5))

    def __check_init__(self) -> None:
        check_amount(self.concentration, "concentration", "BetaBinomial")

    @property
    def priors(self) -> dict[str, dist.Distribution]:
        return {"concentration": self.concentration} if isinstance(self.concentration, dist.Distribution) else {}

    def distribution(
        self, mu: Array, totals: Array, own: Mapping[str, Array], index: np.ndarray, clock: Clock | None = None
    ) -> dist.Distribution:
        probs = jnp.clip(mu[..., index], FLOOR, 1.0 - FLOOR)
        concentration = amount(self.concentration, own, "concentration")
        return dist.BetaBinomial(concentration * probs, concentration * (1.0 - probs), totals.astype(int)[..., None])


OBSERVATIONS: dict[str, type[Observation]] = {
    kind.__name__: kind
    for kind in (Gaussian, SimplexGaussian, Dirichlet, Multinomial, DirichletMultinomial, Binomial, BetaBinomial)
}
