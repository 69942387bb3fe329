"""`bayes-mfg study`: simulate, fit and score on the grid of a study's config."""

import argparse
import contextlib
from pathlib import Path

from bayes_mfg.errors import InputError

from .arguments import Add, glance, progress
from .jax_settings import set_up_jax
from .places import PICTURE, TABLE, if_asked, replaceable
from .printing import in_columns


def add(command: Add) -> None:
    """Declare the command."""
    parser = command("study", run, "simulate, fit and score on the grid of a study's config")
    parser.add_argument("config", metavar="STUDY.toml")
    parser.add_argument("--out", metavar="FILE.csv", help="rows of all replicates; older ones are replaced (default: NAME.csv)")
    parser.add_argument("--plot", metavar="FILE.svg", help="draw the scores over the grid, too")
    parser.add_argument("--checkpoint", metavar="DIR", help="keep every replicate there, and go on from what is there")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core; 1: this one)")
    parser.add_argument("--quiet", action="store_true", help="only the table")


def run(options: argparse.Namespace, words: str) -> None:
    """Run all replicates, write their rows, and print the scores."""
    picture = if_asked(options.plot, PICTURE)
    glance(options.config)
    table = replaceable(options.out or f"{Path(options.config).stem}.csv", TABLE)
    if options.workers is not None and options.workers < 1:
        raise InputError(f"--workers {options.workers}: a whole number of at least 1 is needed.")
    set_up_jax()
    from bayes_mfg.inference import processes
    from bayes_mfg.reproduce.study import load_study, run_study

    chosen = load_study(options.config)
    with contextlib.nullcontext() if options.workers == 1 else processes(options.workers) as pool:
        found = run_study(chosen, executor=pool, checkpoint=options.checkpoint, progress=progress(options))
    saved = found.save(table)  # what took hours is safe before anything is made of it
    print(in_columns(found.table()[[*found.names, "scored", "failed", *found.scores]], index=False))
    for warning in found.warnings:
        print(f"warning: {warning}")
    print(f"rows: {saved}")
    if picture is not None:
        print(f"picture: {found.plot(picture)}")
