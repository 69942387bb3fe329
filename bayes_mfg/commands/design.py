"""`bayes-mfg design`: what to observe next, by the table [design] of a config."""

import argparse

from bayes_mfg.errors import InputError

from .arguments import Add, add_config, glance, progress
from .jax_settings import set_up_jax
from .places import PICTURE, if_asked, saved_fit
from .printing import in_columns


def add(command: Add) -> None:
    """Declare the command."""
    parser = command("design", run, "choose what to observe next, by the table [design] of a config")
    add_config(parser)
    parser.add_argument("--at", metavar="RUN", help="folder of a run, or its fit.nc: what next, after this fit and its data")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default: 0)")
    parser.add_argument("--out", metavar="FILE.svg", help="draw the design, too; an older picture is replaced")
    parser.add_argument("--quiet", action="store_true", help="no progress, and no table of candidates")


def run(options: argparse.Namespace, words: str) -> None:
    """Print the chosen observations and what they bring, and draw them where that is asked for."""
    target = if_asked(options.out, PICTURE)
    if not 0 <= options.seed < 2**32:
        raise InputError(f"--seed {options.seed}: a whole number from 0 to 4294967295 is needed.")
    source = None if options.at is None else saved_fit(options.at)
    glance(options.config)
    set_up_jax()
    from bayes_mfg.config.calibration import build_model, load_config
    from bayes_mfg.config.design import run_design
    from bayes_mfg.inference import load

    model = build_model(load_config(options.config, data=options.data))
    at = None if source is None else load(source, model)
    found = run_design(options.config, model, at=at, seed=options.seed, progress=progress(options))
    if not options.quiet:
        table = found.table()
        some = table[table["chosen"] | table["uniform"]].dropna(axis=1, how="all")
        print(f"{in_columns(some)}\n")
    print("\n".join(found.sentences))
    if target is not None:
        print(f"picture: {found.plot(target)}")
