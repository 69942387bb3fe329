"""`bayes-mfg report`: the report of a saved fit once more."""

import argparse

from .arguments import Add
from .jax_settings import set_up_jax
from .places import PAGE, replaceable, saved_fit


def add(command: Add) -> None:
    """Declare the command."""
    parser = command("report", run, "write the report of a saved fit once more")
    parser.add_argument("fit", metavar="RUN", help="folder of a run, or its fit.nc")
    parser.add_argument("--out", metavar="FILE.html", help="an older page is replaced (default: report.html beside the fit)")


def run(options: argparse.Namespace, words: str) -> None:
    """Write the page."""
    path = saved_fit(options.fit)
    target = replaceable(options.out or path.with_name("report.html"), PAGE)
    set_up_jax()
    from bayes_mfg.inference import load

    print(f"report: {load(path).report(target)}")
