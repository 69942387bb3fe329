"""`bayes-mfg fit` and `demo`: fit a config's model and leave a folder with all that was found."""

import argparse
import importlib.resources
import logging
import sys
from typing import TYPE_CHECKING, Any

from bayes_mfg import __version__
from bayes_mfg.errors import InputError
from bayes_mfg.runs import CHECKPOINT, again, appearing, discard_checkpoint, logging_to, new_folder, unfinished

from .arguments import Add, add_config, glance, progress
from .beside import add_findings, add_interventions
from .jax_settings import set_up_jax
from .printing import print_findings, summary

if TYPE_CHECKING:
    from bayes_mfg.config.calibration import Config

log = logging.getLogger(__name__)

DEMO = "school_outbreak.toml"


def add(command: Add) -> None:
    """Declare both commands."""
    demo = command("demo", run_demo, "fit the SIR game to the school outbreak of 1978 (examples/school_outbreak.toml)")
    fit = command("fit", run, "fit the model of a config to its data")
    add_config(fit)
    fit.add_argument("--method", metavar="METHOD", help="nuts, svi or point, instead of the config's [inference] method")
    fit.add_argument("--seed", type=int, metavar="N", help="instead of the config's [inference] seed")
    for one in (demo, fit):
        one.add_argument(
            "--out", metavar="DIR", help="folder of the run; it must not exist yet, or be empty (default: runs/NAME-TIME)"
        )
        one.add_argument("--quiet", action="store_true", help="only warnings and the paths of what was written")
        one.add_argument(
            "--resume",
            action="store_true",
            help="go on with a run that was interrupted or killed: that of --out, or the last one of its name in runs/",
        )


def run_demo(options: argparse.Namespace, words: str) -> None:
    """Fit the example that comes with the package."""
    set_up_jax()
    from bayes_mfg.config.calibration import load_config

    with importlib.resources.as_file(importlib.resources.files("bayes_mfg.examples") / DEMO) as path:
        config = load_config(path)
    if not options.quiet:
        print("The demo samples for one to three minutes on two cores, the first time with compiling.", flush=True)
    _fit(config, options, words)


def run(options: argparse.Namespace, words: str) -> None:
    """Fit the config that is named."""
    glance(options.config)
    set_up_jax()
    from bayes_mfg.config.calibration import load_config

    _fit(load_config(options.config, data=options.data, method=options.method, seed=options.seed), options, words)


def _fit(config: "Config", options: argparse.Namespace, words: str) -> None:
    """Fit a config's model and leave a folder: config.toml, fit.nc, report.html, run.log; with checkpoint/, too, where the fit was interrupted."""
    from bayes_mfg.config.calibration import build_model
    from bayes_mfg.inference import FitError, fit

    failure: FitError | None = None
    found: list[Any] = []
    undone: list[str] = []
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
        result = fit(
            model,
            config.method,
            seed=config.seed,
            prior_samples=config.prior_samples,
            title=config.title,
            config=config.text,
            progress=progress(options),
            **keeping,
            **config.options,
        )
        # What took minutes is safe before anything is made of it.
        (work / "config.toml").write_text(config.text, encoding="utf-8", newline="\n")
        result.save(work / "fit.nc")
        try:
            told = "\n".join([*summary(result), f"fitted in {result.tree.attrs['wall_time_seconds']:.0f} s"])
            log.info("summary:\n%s", told)
            result.report(work / "report.html")
        except Exception as error:
            log.exception("no report")
            trouble = f"The fit is saved in {folder}, but summary and report could not be made ({type(error).__name__}: {error})."
            told, failure = "", FitError(trouble)
        undone += add_interventions(result, config, work)
        if failure is None:
            found, missing = add_findings(result, config.findings, work, progress(options))
            undone += missing
        log.info("finished")
    if not result.interrupted:
        # After the run has its name: a kill before leaves what the same draws come from, and one in between leaves both.
        discard_checkpoint(folder)
    if failure is not None:
        raise failure
    say(f"\n{told}\n")
    print_findings(found, say)
    for warning in (*result.warnings, *undone):
        print(f"warning: {warning}")
    print(f"report: {folder / 'report.html'}")
    print(f"fit: {folder / 'fit.nc'}")
    if result.interrupted:
        raise KeyboardInterrupt(f"this is the fit of the draws so far; the same command with {again(folder)} goes on.")
