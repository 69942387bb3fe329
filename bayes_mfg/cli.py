"""The command line: `bayes-mfg demo`, `fit`, `identify`, `design`, `study`, `simulate`, `report`, `intervene`, `reproduce`.

JAX and what stands on it are imported inside functions, so that `--help` and a mistyped command answer at once, and so that
double precision is switched on before anything is computed.
"""

import argparse
import contextlib
import importlib.resources
import json
import logging
import os
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayes_mfg import __version__
from bayes_mfg.config.files import read_toml
from bayes_mfg.errors import InputError
from bayes_mfg.runs import CHECKPOINT, again, appearing, discard_checkpoint, logging_to, new_folder, unfinished

if TYPE_CHECKING:
    from bayes_mfg.config.calibration import Config
    from bayes_mfg.inference import Fit
    from bayes_mfg.inference.intervention_result import Intervention

log = logging.getLogger("bayes_mfg.cli")

DEMO = "school_outbreak.toml"
CACHE_DAYS = 90
"""Compiled programs that were not used for this long are removed from the cache."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : arguments; by default those of the process.

    Returns
    -------
    Exit status: 0; 1 when a fit or a file could not be made; 2 for bad input, and then nothing was written; 130 after an
    interrupt, also where it left a fit of the draws so far.
    """
    try:
        options = _parser().parse_args(argv)
    except SystemExit as leave:  # argparse has spoken: 0 after --help, 2 after a mistake
        return int(leave.code or 0)
    words = shlex.join(["bayes-mfg", *(sys.argv[1:] if argv is None else argv)])
    try:
        with _ended_by_signals():
            options.run(options, words)
    except InputError as error:
        return _complain(error, 2)
    except KeyboardInterrupt as error:
        return _complain(f"interrupted; {error if str(error) else 'nothing was written.'}", 130)
    except MemoryError as error:
        return _complain(
            f"the memory does not suffice ({error}); smaller numbers of points, trajectories or draws are needed.", 1
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more when it ends
        return _complain("whoever read the output has gone; what was announced is written.", 1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _complain(f"{place}{error.strerror or error}.", 1)
    except RuntimeError as error:
        from bayes_mfg.inference import FitError

        if not isinstance(error, FitError):
            raise
        return _complain(error, 1)
    return 0


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A polite request to end (of a batch system, of `timeout`) takes the same way out as any error, so that nothing is left behind."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _complain(message: object, status: int) -> int:
    print(f"bayes-mfg: {message}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bayes-mfg",
        description="Bayesian calibration of finite-state mean field games.",
        epilog="Exit status: 0; 1 when a fit failed; 2 for bad input, and then nothing was written.",
    )
    parser.add_argument("--version", action="version", version=f"bayes-mfg {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        one.set_defaults(run=run)
        return one

    folder = "folder of the run; it must not exist yet, or be empty (default: runs/NAME-TIME)"
    demo = command("demo", _demo, "fit the SIR game to the school outbreak of 1978 (examples/school_outbreak.toml)")
    demo.add_argument("--out", metavar="DIR", help=folder)
    demo.add_argument("--quiet", action="store_true", help="only warnings and the paths of what was written")

    fit = command("fit", _fit, "fit the model of a config to its data")
    fit.add_argument("config", metavar="CONFIG.toml")
    fit.add_argument("--data", metavar="PATH", help="data file, instead of the config's [data] path")
    fit.add_argument("--method", metavar="METHOD", help="nuts, svi or point, instead of the config's [inference] method")
    fit.add_argument("--seed", type=int, metavar="N", help="instead of the config's [inference] seed")
    fit.add_argument("--out", metavar="DIR", help=folder)
    fit.add_argument("--quiet", action="store_true", help="only warnings and the paths of what was written")

    for one in (demo, fit):
        one.add_argument(
            "--resume",
            action="store_true",
            help="go on with a run that was interrupted or killed: that of --out, or the last one of its name in runs/",
        )

    identify = command("identify", _identify, "say what the data of a config can tell about its unknowns, before any fit")
    identify.add_argument("config", metavar="CONFIG.toml")
    identify.add_argument("--data", metavar="PATH", help="data file, instead of the config's [data] path")
    identify.add_argument("--out", metavar="FILE.html", help="write a page with figures, too; an older page is replaced")

    plan = command("design", _design, "choose what to observe next, by the table [design] of a config")
    plan.add_argument("config", metavar="CONFIG.toml")
    plan.add_argument("--data", metavar="PATH", help="data file, instead of the config's [data] path")
    plan.add_argument("--at", metavar="RUN", help="folder of a run, or its fit.nc: what next, after this fit and its data")
    plan.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default: 0)")
    plan.add_argument("--out", metavar="FILE.svg", help="draw the design, too; an older picture is replaced")
    plan.add_argument("--quiet", action="store_true", help="no progress, and no table of candidates")

    study = command("study", _study, "simulate, fit and score on the grid of a study's config")
    study.add_argument("config", metavar="STUDY.toml")
    study.add_argument("--out", metavar="FILE.csv", help="rows of all replicates; older ones are replaced (default: NAME.csv)")
    study.add_argument("--plot", metavar="FILE.svg", help="draw the scores over the grid, too")
    study.add_argument("--checkpoint", metavar="DIR", help="keep every replicate there, and go on from what is there")
    study.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core; 1: this one)")
    study.add_argument("--quiet", action="store_true", help="only the table")

    simulate = command("simulate", _simulate, "simulate data from a config's game and true parameters into a tidy CSV file")
    simulate.add_argument("config", metavar="CONFIG.toml")
    simulate.add_argument("--out", metavar="FILE.csv", help="a file that does not exist yet (default: NAME.csv)")
    simulate.add_argument("--seed", type=int, metavar="N", help="instead of the config's [simulation] seed")

    report = command("report", _report, "write the report of a saved fit once more")
    report.add_argument("fit", metavar="RUN", help="folder of a run, or its fit.nc")
    report.add_argument("--out", metavar="FILE.html", help="an older page is replaced (default: report.html beside the fit)")

    change = command("intervene", _intervene, "say what changes of the game would do, in every draw of a saved fit")
    change.add_argument("fit", metavar="RUN", help="folder of a run, with its config.toml and fit.nc")
    change.add_argument(
        "--with", dest="changes", metavar="FILE.toml", help="tables [[intervention]], instead of those of the run's config"
    )
    change.add_argument("--draws", type=int, metavar="N", help="draws to use, spread evenly (default: all)")
    change.add_argument("--out", metavar="FILE.html", help="write a page with figures, too; an older page is replaced")

    again = command("reproduce", _reproduce, "fit and score a benchmark of arXiv 2606.23155 on simulated data")
    again.add_argument(
        "system", metavar="SYSTEM", help="lq, mfc, cybersecurity, sir, epidemic, emissions, bike_share, el_farol or meeting"
    )
    again.add_argument(
        "--case",
        metavar="C",
        help="shape of the parameters, such as constant, arc, bell, population (default: the system's first)",
    )
    again.add_argument(
        "--noise", type=float, metavar="E", help="eps of the noise Dirichlet(mu / eps), 0 for none (default: the paper's)"
    )
    again.add_argument("--states", type=int, metavar="D", help="number of states, for lq")
    again.add_argument("--seeds", type=int, default=1, metavar="K", help="number of data sets (default: 1)")
    again.add_argument("--first", type=int, default=0, metavar="N", help="seed of the first data set (default: 0)")
    again.add_argument("--method", default="svi", metavar="METHOD", help="point, paper, svi (default) or nuts")
    again.add_argument(
        "--scheme", default="exponential", metavar="S", help="time scheme of the fit, exponential (default) or paper"
    )
    again.add_argument(
        "--finer", type=int, default=1, metavar="N", help="simulate on a grid N times finer than the fit's (default: 1)"
    )
    again.add_argument("--trajectories", type=int, metavar="R", help="training trajectories (default: the paper's number)")
    again.add_argument("--draws", type=int, default=1000, metavar="N", help="draws of the posterior (default: 1000)")
    again.add_argument("--comparators", action="store_true", help="fit forward dynamics and a neural ODE, too")
    again.add_argument("--json", metavar="FILE", help="write all rows; written anew after each")
    again.add_argument("--quiet", action="store_true", help="only the table")
    return parser


# Commands


def _demo(options: argparse.Namespace, words: str) -> None:
    _set_up_jax()
    from bayes_mfg.config.calibration import load_config

    with importlib.resources.as_file(importlib.resources.files("bayes_mfg.examples") / DEMO) as path:
        config = load_config(path)
    _run(config, options, words)


def _fit(options: argparse.Namespace, words: str) -> None:
    _glance(options.config)
    _set_up_jax()
    from bayes_mfg.config.calibration import load_config

    _run(load_config(options.config, data=options.data, method=options.method, seed=options.seed), options, words)


def _glance(path: str) -> None:
    """Say at once, before JAX is imported, that a config is missing or no TOML; a pipe can only be read once."""
    if not Path(path).is_fifo():
        read_toml(path)


def _run(config: "Config", options: argparse.Namespace, words: str) -> None:
    """Fit a config's model and leave a folder: config.toml, fit.nc, report.html, run.log; with checkpoint/, too, where the fit was interrupted."""
    from bayes_mfg.config.calibration import build_model
    from bayes_mfg.inference import FitError, fit

    failure: FitError | None = None
    unanswered: list[str] = []
    say = (lambda *_: None) if options.quiet else print
    resume = options.resume
    # The paper's least squares takes seconds and keeps nothing on the way.
    keeps = config.options.get("objective") != "paper"
    if config.reader == "blank":
        raise InputError(f"{config.file}: the data are blank, there is nothing to fit; they serve identify and design.")
    if resume and not keeps:
        raise InputError("The paper's least squares keeps nothing to go on from; run it without --resume.")
    folder = unfinished(options.out, config.name) if resume else new_folder(options.out, config.name)
    model = build_model(config)
    with (
        appearing(folder, resume=resume, tell=lambda hint: print(f"bayes-mfg: {hint}", file=sys.stderr)) as work,
        logging_to(work / "run.log"),
    ):
        keeping: dict[str, Any] = {"checkpoint": work / CHECKPOINT, "resume": resume} if keeps else {}
        population = model.population
        for line in (f"bayes-mfg {__version__}: {words}", f"data: {population!r}", *config.notes):
            log.info("%s", line)
        say(f"bayes-mfg {__version__}: {type(config.game).__name__} fitted to {population!r} by {config.method}.")
        for note in config.notes:
            print(note, file=sys.stderr)
        begin = time.perf_counter()
        result = fit(
            model,
            config.method,
            seed=config.seed,
            prior_samples=config.prior_samples,
            title=config.title,
            config=config.text,
            progress=False if options.quiet else None,
            **keeping,
            **config.options,
        )
        seconds = time.perf_counter() - begin
        # What took minutes is safe before anything is made of it.
        (work / "config.toml").write_text(config.text, encoding="utf-8", newline="\n")
        result.save(work / "fit.nc")
        try:
            summary = "\n".join([*_summary(result), f"fitted in {seconds:.0f} s"])
            log.info("summary:\n%s", summary)
            result.report(work / "report.html")
        except Exception as error:
            log.exception("no report")
            trouble = f"The fit is saved in {folder}, but summary and report could not be made ({type(error).__name__}: {error})."
            summary, failure = "", FitError(trouble)
        unanswered = _answer(result, config, work)
        log.info("finished")
    if not result.interrupted:
        # After the run has its name: a kill before leaves what the same draws come from, and one in between leaves both.
        discard_checkpoint(folder)
    if failure is not None:
        raise failure
    say(f"\n{summary}\n")
    for warning in (*result.warnings, *unanswered):
        print(f"warning: {warning}")
    print(f"report: {folder / 'report.html'}")
    print(f"fit: {folder / 'fit.nc'}")
    if result.interrupted:
        raise KeyboardInterrupt(f"this is the fit of the draws so far; the same command with {again(folder)} goes on.")


def _answer(result: "Fit", config: "Config", work: Path) -> list[str]:
    """Add what the config's scenarios do to fit and report; why some could not be added. The report of a finished fit does not hang on them."""
    from bayes_mfg.inference.intervention_page import keep

    found, failed = _answers(result, config)
    if found:
        try:
            keep(result.tree, found)
            result.save(work / "fit.nc")
            result.report(work / "report.html")
        except Exception as error:
            log.exception("interventions were not added")
            failed.append(f"the interventions could not be added to fit and report ({type(error).__name__}: {error})")
    return failed


def _answers(result: "Fit", config: "Config") -> tuple[dict[str, "Intervention"], list[str]]:
    """What the config's scenarios do, each by itself, and why some have no answer."""
    found: dict[str, Intervention] = {}
    failed: list[str] = []
    for name, scenario in config.interventions.items():
        try:
            found[name] = result.intervene(*scenario.changes, num_draws=scenario.number(result), flows=False)
        except Exception as error:
            log.exception("no answer to the intervention %s", name or "without a name")
            failed.append(f"intervention {name or 'without a name'} has no answer ({type(error).__name__}: {error})")
    return found, failed


def _simulate(options: argparse.Namespace, words: str) -> None:
    _glance(options.config)
    _set_up_jax()
    from bayes_mfg.config.simulation import load_simulation

    simulation = load_simulation(options.config, seed=options.seed)
    target = Path(options.out or f"{simulation.name}.csv")
    truth = target.with_suffix(".json")
    if target == truth:
        raise InputError(f"{target}: the truth beside the data ends in .json; give the data another ending, such as .csv.")
    for path in (target, truth):
        if path.exists():
            raise InputError(f"{path} exists already; choose another file with --out, or remove it.")
    if not target.parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist.")
    population = simulation.run()
    from bayes_mfg.inference.files import replacing

    record = {"command": words, "version": __version__, **population.provenance}
    with replacing(target) as part:
        part.write_text(population.to_table().to_csv(index=False, lineterminator="\n"), encoding="utf-8", newline="\n")
        with replacing(truth) as beside:
            beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8", newline="\n")
    print(repr(population))
    print(f"truth: {truth}")
    print(f"data: {target}")


def _identify(options: argparse.Namespace, words: str) -> None:
    target = Path(options.out) if options.out else None
    if target is not None:
        _check_page(target)
    _glance(options.config)
    _set_up_jax()
    from bayes_mfg.config.calibration import build_model, load_config
    from bayes_mfg.inference import identifiability

    config = load_config(options.config, data=options.data)
    model = build_model(config)
    found = identifiability(model, seed=config.seed)
    print("\n".join(found.sentences))
    print(f"\n{found.table().to_string(float_format=lambda x: f'{x:.3g}')}")
    if target is not None:
        print(f"page: {found.report(target)}")


def _design(options: argparse.Namespace, words: str) -> None:
    target = _picture(options.out)
    if not 0 <= options.seed < 2**32:
        raise InputError(f"--seed {options.seed}: a whole number from 0 to 4294967295 is needed.")
    source = None if options.at is None else _saved(options.at)
    _glance(options.config)
    _set_up_jax()
    from bayes_mfg.config.calibration import build_model, load_config
    from bayes_mfg.config.design import run_design
    from bayes_mfg.inference import load

    model = build_model(load_config(options.config, data=options.data))
    at = None if source is None else load(source, model)
    found = run_design(options.config, model, at=at, seed=options.seed, progress=False if options.quiet else None)
    if not options.quiet:
        table = found.table()
        some = table[table["chosen"] | table["uniform"]].dropna(axis=1, how="all")
        print(f"{some.to_string(float_format=lambda x: f'{x:.3g}')}\n")
    print("\n".join(found.sentences))
    if target is not None:
        print(f"picture: {found.plot(target)}")


def _study(options: argparse.Namespace, words: str) -> None:
    picture = _picture(options.plot)
    _glance(options.config)
    table = Path(options.out or f"{Path(options.config).stem}.csv")
    if not table.absolute().parent.is_dir():
        raise InputError(f"{table}: the folder {table.parent} does not exist.")
    if table.is_dir() or (table.exists() and table.suffix.casefold() != ".csv"):
        raise InputError(f"{table} exists already and is no table; only an older table (.csv) is replaced.")
    if options.workers is not None and options.workers < 1:
        raise InputError(f"--workers {options.workers}: a whole number of at least 1 is needed.")
    _set_up_jax()
    from bayes_mfg.inference import processes
    from bayes_mfg.reproduce.study import load_study, run_study

    chosen = load_study(options.config)
    with contextlib.nullcontext() if options.workers == 1 else processes(options.workers) as pool:
        found = run_study(chosen, executor=pool, checkpoint=options.checkpoint, progress=False if options.quiet else None)
    saved = found.save(table)  # what took hours is safe before anything is made of it
    print(
        found.table()[[*found.names, "scored", "failed", *found.scores]].to_string(index=False, float_format=lambda x: f"{x:.3g}")
    )
    for warning in found.warnings:
        print(f"warning: {warning}")
    print(f"rows: {saved}")
    if picture is not None:
        print(f"picture: {found.plot(picture)}")


def _saved(place: str) -> Path:
    """The saved fit of a run."""
    path = Path(place)
    if path.is_dir():
        path = path / "fit.nc"
    if not path.is_file():
        raise InputError(f"{place}: there is no saved fit; the folder of a run, or its fit.nc, is needed.")
    return path


def _picture(path: str | None) -> Path | None:
    """Where a picture goes; a place where none can go is refused before anything is computed."""
    if path is None:
        return None
    target = Path(path)
    if not target.absolute().parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist.")
    if target.is_dir() or (target.exists() and target.suffix.casefold() != ".svg"):
        raise InputError(f"{target} exists already and is no picture; only an older picture (.svg) is replaced.")
    return target


def _check_page(target: Path) -> None:
    """Refuse a place where no page can go, before anything is computed."""
    if not target.parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist.")
    if target.is_dir():
        raise InputError(f"{target} is a folder; --out needs the name of a page.")
    if target.exists() and target.suffix.casefold() not in (".html", ".htm"):
        raise InputError(f"{target} exists already and is no page; only an older page (.html) is replaced.")


def _report(options: argparse.Namespace, words: str) -> None:
    path = _saved(options.fit)
    target = Path(options.out) if options.out else path.with_name("report.html")
    _check_page(target)
    _set_up_jax()
    from bayes_mfg.inference import load

    print(f"report: {load(path).report(target)}")


def _intervene(options: argparse.Namespace, words: str) -> None:
    folder = Path(options.fit)
    for name in ("config.toml", "fit.nc"):
        if not (folder / name).is_file():
            raise InputError(f"{options.fit}: there is no {name}; the folder of a run is needed.")
    target = Path(options.out) if options.out else None
    if target is not None:
        _check_page(target)
    _set_up_jax()
    from bayes_mfg.config.calibration import build_model, load_config, load_scenarios
    from bayes_mfg.inference import load
    from bayes_mfg.inference.intervention_page import write_page

    config = load_config(folder / "config.toml")
    asked = load_scenarios(options.changes) if options.changes else config.interventions
    if not asked:
        raise InputError(f"{folder / 'config.toml'} has no tables [[intervention]]; give a file that has some by --with.")
    fitted = load(folder / "fit.nc", build_model(config))
    results = {
        name: fitted.intervene(
            *scenario.changes, num_draws=scenario.number(fitted) if options.draws is None else options.draws, flows=False
        )
        for name, scenario in asked.items()
    }
    for name, found in results.items():
        print("\n".join([*([name] if name else []), *found.sentences]))
        print(f"\n{found.table().to_string(float_format=lambda x: f'{x:.3g}')}\n")
    if target is not None:
        print(f"page: {write_page(results, target)}")


def _reproduce(options: argparse.Namespace, words: str) -> None:
    target = Path(options.json) if options.json else None
    if target is not None and not target.absolute().parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist.")
    if target is not None and (target.is_dir() or (target.exists() and target.suffix.casefold() != ".json")):
        raise InputError(f"{target} exists already and is no .json file; only older results are replaced.")
    _set_up_jax()
    import dataclasses

    from bayes_mfg.inference.assemble import finite
    from bayes_mfg.inference.files import replacing
    from bayes_mfg.reproduce import reproduce, table

    names = ("case", "noise", "states", "seeds", "first", "method", "scheme", "finer", "trajectories", "draws", "comparators")
    rows = []
    for row in reproduce(
        options.system, progress=False if options.quiet else None, **{name: getattr(options, name) for name in names}
    ):
        rows.append(row)
        if not options.quiet:
            print(
                f"seed {row.seed}, {row.model}: mu error {row.mu_error:.2e}, gamma error {row.gamma_error:.3g}, {row.seconds:.0f} s",
                flush=True,
            )
        if target is not None:
            text = json.dumps(finite([dataclasses.asdict(row) for row in rows]), indent=1)
            with replacing(target) as part:
                part.write_text(text + "\n", encoding="utf-8", newline="\n")
    print(table(rows).to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    for row in rows:
        for name, values in row.estimates.items():
            print(f"seed {row.seed}, {name}: {', '.join(f'{x:.3g}' for x in values)}")
    if target is not None:
        print(f"rows: {target}")


# What is printed

_COLUMNS = {
    "estimate": "estimate",
    "mean": "mean",
    "sd": "sd",
    "median": "median",
    "eti90_lb": "5 %",
    "eti90_ub": "95 %",
    "ess_bulk": "ESS bulk",
    "ess_tail": "ESS tail",
    "r_hat": "R-hat",
}


def _summary(result: "Fit") -> list[str]:
    """The summary table, and how many observations lie in their predictive band, as lines of text."""
    from bayes_mfg.inference.report_stats import convergence, coverage, group, lost_to_solves

    table = result.summary()
    table = table[[name for name in _COLUMNS if name in table]]
    if result.method in ("svi", "ensemble"):  # independent draws have neither
        table = table.drop(columns=["ess_bulk", "ess_tail", "r_hat"], errors="ignore")
    table = table.rename(columns=_COLUMNS)
    formats = {name: (lambda x: f"{x:.3f}") if name == "R-hat" else (lambda x: f"{x:.0f}") for name in table if name[0] in "ER"}
    lines = table.to_string(formatters=formats, float_format=lambda x: f"{x:.4g}").splitlines()
    for state, (inside, total) in (coverage(result.tree) or {}).items():
        lines.append(f"{state}: {inside} of {total} observations inside the 90 % predictive band")
    if result.method == "nuts":
        judged = [row for row in convergence(group(result.tree, "posterior")) if row.checked]
        ess = min(min(row.ess_bulk, row.ess_tail) for row in judged)
        stats = group(result.tree, "sample_stats")
        lines.append(
            f"over parameters, populations and values: largest R-hat {max(row.r_hat for row in judged):.3f}, smallest ESS {ess:.0f}; "
            f"{int(stats['diverging'].sum())} divergences; {lost_to_solves(result.tree)}"
        )
    if result.method == "point":
        lines.append("A point estimate says nothing about uncertainty.")
    return lines


# JAX


def _set_up_jax() -> None:
    """Double precision, and compiled programs kept between runs; before anything is computed."""
    import jax

    jax.config.update("jax_enable_x64", True)
    folder = _cache_folder()
    if folder is None or jax.config.jax_compilation_cache_dir is not None:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        oldest = time.time() - CACHE_DAYS * 86400
        for file in folder.iterdir():
            with contextlib.suppress(OSError):
                # What JAX writes, and nothing else: a program is `...-cache`, and its last use is noted in `...-atime`.
                ours = file.name.startswith("jit_") and file.name.endswith(("-cache", "-atime"))
                if ours and max(file.stat().st_mtime, file.stat().st_atime) < oldest:
                    file.unlink()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    # The cache only saves time: where it cannot be read or written, the program is compiled.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")


def _cache_folder() -> Path | None:
    """Folder of compiled programs: `BAYES_MFG_CACHE`, or the platform's place for caches; None where it says "off"."""
    given = os.environ.get("BAYES_MFG_CACHE", "")
    if given.casefold() in ("off", "0", "no"):
        return None
    if given:
        return Path(given)
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home
        return None
    if sys.platform == "darwin":
        base = home / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "bayes-mfg" / "jax"
