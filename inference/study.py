"""Simulation studies: every cell of a grid, every replicate, through any executor, resumable, into one tidy table."""

import concurrent.futures
import contextlib
import importlib.metadata
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from bayes_mfg.errors import InputError

from .assemble import PACKAGES
from .checkpoint import Checkpoint
from .errors import FitError
from .options import whole
from .parallel import ONE_AT_A_TIME, travels
from .progress import bar
from .study_identity import called, identity, written
from .study_result import Study
from .study_scores import Scored

log = logging.getLogger(__name__)

DONE = "done"

type Row = Mapping[str, Any]


def study(
    function: Callable[..., Any],
    grid: Mapping[str, Sequence[Any]],
    *,
    replicates: int = 10,
    method: str | None = None,
    truth: Mapping[str, Any] | None = None,
    seed: int = 0,
    executor: concurrent.futures.Executor | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
    **options: Any,
) -> Study:
    """Simulate, fit and score on a grid: noise, trajectories, horizon, states, what is observed, families of paths, or whatever a function takes.

    Replicate number r of every cell has the seed `seed + r`, so that cells are compared on the same random numbers where they use them alike.

    Parameters
    ----------
    function : without `method`, a function `(seed, **cell) -> dict` of one replicate's scores: numbers, truth values or texts by name. With a
        `method`, a function `(**cell) -> model`: its data say how data look (times, trajectories, totals, gaps, starts); truths are drawn from its
        prior, or are `truth`; data are drawn from its observation model, fitted by the method, and scored, see `Scored`.
    grid : name -> values (numbers, texts, truth values) of each argument; cells are all combinations, the last name changing fastest.
    replicates : of every cell.
    method : of `fit`: "nuts", "svi" or "point".
    truth : what is known of the truth, by name: of a parameter with a path a number, or values at the model's grid times, `(T, ...)`, from which data
        are simulated whether or not the cell's family can follow them; of other unknowns values as `identifiability` takes them. What is not given
        every replicate draws from the prior; by default everything.
    seed : of the first replicate.
    executor : runs replicates in parallel: `bm.inference.processes()`, or another `concurrent.futures.Executor`. Workers must be able to import
        `function`. By default one after the other, here.
    checkpoint : a folder, new or empty, that keeps every replicate of every cell in a file of its own as it is done. What the function and the
        options consist of (code, bound arguments, values that they close over, fields of objects) is told from anything else.
    resume : go on from what the checkpoint holds; grid, function, method, options, versions and precision have to be the same. Replicates that failed
        have been done.
    progress : show progress; by default on a terminal only.
    **options : of the method, as in `fit`; without a method further arguments of the function, the same in every cell.

    Returns
    -------
    Study

    Raises
    ------
    InputError : for a grid, a function, a truth or an option that does not fit (with a method, the model of the first cell is made to tell), a
        checkpoint of another study, and one of a function or an option whose content cannot be told. Whatever else goes wrong in a replicate is its
        `outcome`, with the kind of error.
    """
    _refuse(function, grid, replicates, method, seed, truth)
    cells = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    one: Callable[..., Row] = function
    if method is not None:
        one = scored = Scored(function, method, dict(truth) if truth else None, options)
        scored.check(cells[0])
    fixed = options if method is None else {}
    about = {
        "function": called(function),
        "grid": {name: list(values) for name, values in grid.items()},
        "method": method,
        "truth": None if truth is None else {name: np.asarray(x).tolist() for name, x in truth.items()},
        "options": {name: written(x) for name, x in options.items()},
        "seed": seed,
        "versions": {name: importlib.metadata.version(name) for name in (*PACKAGES, "jaxlib", "optax", "equinox", "scipy")},
        "precision": str(jnp.zeros(()).dtype),
        "backend": jax.default_backend(),
    }
    kept = None
    if checkpoint is not None:
        content = {
            "content of the function": identity(function, "study: function"),
            "content of the options": identity(options, "study: options"),
        }
        kept = Checkpoint(checkpoint, about | content, resume=resume)
    # Cell by cell: what a worker has compiled for a cell serves all of its replicates. Numbers go by replicate, so that more can be added.
    jobs = [(r * len(cells) + c, cell, seed + r) for c, cell in enumerate(cells) for r in range(replicates)]
    results: dict[int, dict[str, Any]] = {}
    begin = time.perf_counter()
    with contextlib.nullcontext() if kept is None else kept.held():
        for number, _, _ in jobs:
            if found := [] if kept is None else kept.read(f"replicate-{number}"):
                results[number] = {name: x.item() for name, x in found[0].items()}
        with bar(len(jobs), "study", progress) as shown:
            shown.update(len(results))
            for number, row in _done(one, fixed, [job for job in jobs if job[0] not in results], executor):
                results[number] = row
                if kept is not None:
                    kept.write(f"replicate-{number}", 0, row)
                shown.update()
    rows = [
        {**cell, "replicate": number // len(cells), **results[number]} for number, cell, _ in sorted(jobs, key=lambda j: j[0])
    ]
    result = Study(pd.DataFrame(rows), tuple(grid), about, time.perf_counter() - begin)
    for sentence in result.warnings:
        log.warning("%s", sentence)
    return result


def _refuse(function: Any, grid: Any, replicates: Any, method: Any, seed: Any, truth: Any) -> None:
    """Refuse what no study can be made of.

    Raises
    ------
    InputError : naming what was given.
    """
    if not callable(function):
        raise InputError(f"study: function is {function!r}; a function (seed, **cell) -> dict, or (**cell) -> model, is needed.")
    if not isinstance(grid, Mapping) or not grid:
        raise InputError(f"study: grid is {grid!r}; a dict from names to lists of values is needed.")
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise InputError(f"study: grid has {name!r} = {values!r}; a list of at least one value is needed.")
        if any(not isinstance(v, int | float | str) for v in values):
            raise InputError(
                f"study: grid has {name!r} = {values!r}; numbers, texts or truth values are needed, which a table can hold."
            )
        if name in ("seed", "replicate", "outcome", "seconds"):
            raise InputError(f"study: {name!r} is a column of every study, and no name of the grid.")
        if len(set(values)) < len(values):
            raise InputError(f"study: grid has {name!r} = {values!r}; values of their own are needed.")
    if method not in (None, "nuts", "svi", "point"):
        raise InputError(
            f"study: method is {method!r}; choose nuts, svi, point, or leave it out for a function that fits by itself."
        )
    if truth is not None and (method is None or not isinstance(truth, Mapping)):
        raise InputError(f"study: truth is {truth!r}; a dict from names to values is needed, and a method.")
    for what, value, least in (("replicates", replicates, 1), ("seed", seed, 0)):
        if not whole(value) or value < least:
            raise InputError(f"study: {what} is {value!r}; a whole number of at least {least} is needed.")


def _work(function: Callable[..., Row], fixed: Mapping[str, Any], cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """One replicate of one cell.

    Raises
    ------
    InputError : for what is no table's row.
    """
    begin = time.perf_counter()
    with ONE_AT_A_TIME:
        try:
            row = function(seed=seed, **cell, **fixed)
        except Exception as error:  # one replicate of hundreds: it counts as failed, with its reason
            known = isinstance(error, FitError)
            log.warning("replicate with seed %d of %s failed", seed, dict(cell), exc_info=not known)
            what = f"fit failed: {error}" if known else f"failed: {type(error).__name__}: {error}"
            return {"outcome": what, "seconds": time.perf_counter() - begin}
    if not isinstance(row, Mapping):
        raise InputError(f"study: the function gave {row!r}; a dict of scores is needed.")
    found = {
        name: x.item() if isinstance(x, np.generic | np.ndarray | jax.Array) and np.size(x) == 1 else x for name, x in row.items()
    }
    for name, x in found.items():
        if not isinstance(x, int | float | str) or name in cell:
            raise InputError(f"study: the function gave {name!r} = {x!r}; a number or a text under a name of its own is needed.")
    return {"outcome": DONE, "seconds": time.perf_counter() - begin, **found}


def _done(
    function: Callable[..., Row],
    fixed: Mapping[str, Any],
    jobs: list[tuple[int, dict[str, Any], int]],
    executor: concurrent.futures.Executor | None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows as they come."""
    if executor is None:
        yield from ((number, _work(function, fixed, cell, seed)) for number, cell, seed in jobs)
        return
    if isinstance(executor, concurrent.futures.ProcessPoolExecutor):
        travels(function, fixed)
    running = {executor.submit(_work, function, fixed, cell, seed): number for number, cell, seed in jobs}
    try:
        for future in concurrent.futures.as_completed(running):
            yield running[future], future.result()
    finally:
        for future in running:
            future.cancel()
