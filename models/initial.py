"""Initial populations: known, taken from the first observation, or unknown."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.paths.base import describe
from bayes_mfg.paths.priors import check_positive, check_prior

from .observations import in_words

type Draw = Callable[[str, dist.Distribution], Array]


class Initial(eqx.Module):
    """Where every trajectory starts."""

    @abc.abstractmethod
    def fixed(self, population: Population) -> np.ndarray:
        """What is known before fitting, `(R, d)`; unknown shares are placeholders.

        Raises
        ------
        InputError : when it does not suit the data.
        """

    @abc.abstractmethod
    def sample(self, draw: Draw, fixed: Array) -> Array:
        """Initial populations `(R, d)`; unknowns are drawn by `draw(name, prior)`."""

    def unknown_states(self, population: Population) -> tuple[str, ...]:
        """States whose initial share is estimated: what summaries and reports show of it."""
        return ()

    @property
    def local_sites(self) -> tuple[str, ...]:
        """Names of the unknowns whose first axis are the trajectories, each row of which its own trajectory alone sees."""
        return ()

    @property
    def words(self) -> str:
        """One line for reports."""
        return in_words(self)


class Known(Initial):
    """Initial populations that are known.

    Parameters
    ----------
    mu0 : `(d,)` for all trajectories, or `(R, d)`.
    """

    mu0: Any

    def fixed(self, population: Population) -> np.ndarray:
        try:
            mu0 = np.asarray(self.mu0, dtype=float)
        except (TypeError, ValueError) as error:
            raise InputError(f"Known: mu0 is {self.mu0!r}; an array of shares is needed.") from error
        shape = (population.n_trajectories, population.n_states)
        if mu0.shape not in (shape, shape[1:]):
            raise InputError(f"Known: mu0 has shape {mu0.shape}; {shape[1:]} or {shape} is needed.")
        if not np.all(np.isfinite(mu0)) or np.any(mu0 < 0) or np.any(np.abs(mu0.sum(axis=-1) - 1) > 1e-6):
            raise InputError("Known: every row of mu0 must be non-negative and sum to one.")
        return np.broadcast_to(mu0, shape)

    @property
    def words(self) -> str:
        return "known initial populations"

    def sample(self, draw: Draw, fixed: Array) -> Array:
        return fixed


class FirstObserved(Initial):
    """The first observation taken as the truth, noise and all; what arXiv 2606.23155 does. The likelihood then leaves it out."""

    def fixed(self, population: Population) -> np.ndarray:
        if not population.mask[:, 0].all():
            r = int(np.flatnonzero(~population.mask[:, 0].all(axis=-1))[0])
            raise InputError(f"FirstObserved: trajectory {population.trajectories[r]!r} is not fully observed at its first time.")
        shares = population.shares[:, 0]
        return shares / shares.sum(axis=-1, keepdims=True)

    def sample(self, draw: Draw, fixed: Array) -> Array:
        return fixed


class UnknownShares(Initial):
    """All shares unknown, Dirichlet with the same concentration for every state.

    Parameters
    ----------
    concentration : 1 is uniform over the simplex.
    """

    concentration: float = 1.0

    def __check_init__(self) -> None:
        check_positive(self.concentration, "concentration", "UnknownShares")

    def fixed(self, population: Population) -> np.ndarray:
        return np.full((population.n_trajectories, population.n_states), 1.0 / population.n_states)

    def unknown_states(self, population: Population) -> tuple[str, ...]:
        return population.states

    @property
    def local_sites(self) -> tuple[str, ...]:
        return ("mu0",)

    def sample(self, draw: Draw, fixed: Array) -> Array:
        alpha = jnp.full(fixed.shape, self.concentration, fixed.dtype)
        return draw("mu0", dist.Dirichlet(alpha).to_event(1))


class Seeded(Initial):
    """Everyone in one state but for an unknown share in another: the start of an epidemic.

    Parameters
    ----------
    seed : name of the seeded state.
    rest : name of the state of everyone else.
    share : prior of the seeded share, inside (0, 1); by default log-uniform from 1e-5 to 0.3.
    """

    seed: str = eqx.field(default="I", static=True)
    rest: str = eqx.field(default="S", static=True)
    share: Any = eqx.field(default_factory=lambda: dist.LogUniform(1e-5, 0.3))

    def __check_init__(self) -> None:
        if self.seed == self.rest:
            raise InputError(f"Seeded: seed and rest are both {self.seed!r}; two states are needed.")
        if not isinstance(self.share, dist.Distribution) or self.share.shape() != ():
            raise InputError(
                f"Seeded: share is {describe(self.share)}; a scalar prior is needed, for example LogUniform(1e-5, 0.3)."
            )
        check_prior(self.share, 0.0, 1.0, "Seeded", "share")

    def fixed(self, population: Population) -> np.ndarray:
        for name in (self.seed, self.rest):
            if name not in population.states:
                raise InputError(f"Seeded: the data have no state {name!r}; they have {', '.join(population.states)}.")
        rows = np.zeros((population.n_trajectories, population.n_states))
        rows[:, population.states.index(self.seed)] = 2.0
        rows[:, population.states.index(self.rest)] = 1.0
        return rows

    def unknown_states(self, population: Population) -> tuple[str, ...]:
        return (self.seed,)

    @property
    def local_sites(self) -> tuple[str, ...]:
        return ("seed",)

    @property
    def words(self) -> str:
        return f"everyone in {self.rest} but for a share of {self.seed} ~ {describe(self.share)}"

    def sample(self, draw: Draw, fixed: Array) -> Array:
        share = draw("seed", self.share.expand((fixed.shape[0],)).to_event(1))[:, None]
        # `fixed` marks the seeded state by 2 and the other by 1.
        return jnp.where(fixed == 2.0, share, jnp.where(fixed == 1.0, 1.0 - share, 0.0))


class Started(Initial):
    """Trajectories of which some start where an experimenter put them, and the others as another `Initial` says.

    Parameters
    ----------
    rest : the initial populations of the others; none that are known or taken from the first observation.
    mu0 : `(R, d)`, NaN in the rows of the others.
    """

    rest: Initial
    mu0: Any

    def __check_init__(self) -> None:
        if not isinstance(self.rest, Initial) or isinstance(self.rest, Known | FirstObserved | Started):
            raise InputError(f"Started: rest is {self.rest!r}; unknown initial populations, such as UnknownShares(), are needed.")

    def fixed(self, population: Population) -> np.ndarray:
        rows = np.asarray(self.mu0, float)
        shape = (population.n_trajectories, population.n_states)
        if rows.shape != shape:
            raise InputError(f"Started: mu0 has shape {rows.shape}; {shape} is needed.")
        known = ~np.isnan(rows).any(axis=-1)
        if not np.isnan(rows[~known]).all() or np.any(rows[known] < 0) or np.any(np.abs(rows[known].sum(axis=-1) - 1) > 1e-6):
            raise InputError("Started: every row of mu0 must be non-negative and sum to one, or be NaN.")
        return self.rest.fixed(population)

    def unknown_states(self, population: Population) -> tuple[str, ...]:
        return self.rest.unknown_states(population)

    @property
    def local_sites(self) -> tuple[str, ...]:
        return self.rest.local_sites

    @property
    def words(self) -> str:
        return f"{int((~np.isnan(np.asarray(self.mu0)).any(axis=-1)).sum())} known initial populations; of the others: {self.rest.words}"

    def sample(self, draw: Draw, fixed: Array) -> Array:
        # Unknowns of the known rows are drawn like the others' and have no effect.
        rows = jnp.asarray(self.mu0, fixed.dtype)
        return jnp.where(jnp.isnan(rows), self.rest.sample(draw, fixed), rows)


INITIALS: dict[str, type[Initial]] = {kind.__name__: kind for kind in (Known, FirstObserved, UnknownShares, Seeded)}


def resolve_initial(initial: Any, population: Population) -> Initial:
    """An initial condition from what a user passed: an `Initial`, an array, "observed", or None for the default.

    By default the shares are unknown with a uniform prior.
    """
    if initial is None:
        return UnknownShares()
    if isinstance(initial, Initial):
        return initial
    if isinstance(initial, str):
        if initial == "observed":
            return FirstObserved()
        raise InputError(f'initial is {initial!r}; use "observed", an array, or one of {", ".join(INITIALS)}.')
    return Known(initial)
