"""`bayes-mfg report`: the report of a saved fit once more, with findings that are made for it."""

import argparse
import contextlib
import logging
from collections.abc import Iterator

from bayes_mfg.config.report import FINDINGS
from bayes_mfg.errors import InputError

from .arguments import Add
from .beside import findings, unmade
from .jax_settings import set_up_jax
from .places import PAGE, config_beside, replaceable, saved_fit
from .printing import print_findings


def add(command: Add) -> None:
    """Declare the command."""
    parser = command("report", run, "write the report of a saved fit once more")
    parser.add_argument("fit", metavar="RUN", help="folder of a run, or its fit.nc")
    parser.add_argument("--out", metavar="FILE.html", help="an older page is replaced (default: report.html beside the fit)")
    parser.add_argument(
        "--also",
        nargs="+",
        choices=FINDINGS,
        default=[],
        metavar="FINDING",
        help=f"find out about the fit, too, with the model of the run's config.toml: {', '.join(FINDINGS)}; seconds to minutes each. "
        "A fit does not keep them: without this, the page is written without those that [report] also of the config asked for",
    )


def run(options: argparse.Namespace, words: str) -> None:
    """Write the page; with findings, print these as well."""
    path = saved_fit(options.fit)
    target = replaceable(options.out or path.with_name("report.html"), PAGE)
    config = config_beside(path) if options.also else None
    set_up_jax()
    from bayes_mfg.config.calibration import build_model, load_config
    from bayes_mfg.inference import FitError, load

    if config is None:
        print(f"report: {load(path).report(target)}")
        return
    fit = load(path, build_model(load_config(config)))
    with _unheard():
        found, failed = findings(fit, list(dict.fromkeys(options.also)), None)
    trouble = "; ".join(unmade(name, error) for name, error in failed.items())
    unforeseen = next((error for error in failed.values() if not isinstance(error, InputError | FitError)), None)
    if not found:
        raise unforeseen or (
            InputError(f"{trouble}.")
            if all(isinstance(error, InputError) for error in failed.values())
            else FitError(f"{trouble}.")
        )
    print_findings(found)
    print(f"report: {fit.report(target, found)}")
    if unforeseen is not None:
        raise unforeseen  # after what was found is safe
    if failed:
        raise FitError(f"the report is written, but {trouble}.")


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Keep what the library logs off the screen: warnings of findings are printed with them."""
    logger, handler = logging.getLogger("bayes_mfg"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
