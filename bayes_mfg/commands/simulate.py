"""`bayes-mfg simulate`: data from a config's game and true parameters, and the truth beside them."""

import argparse
import json
from pathlib import Path

from bayes_mfg import __version__
from bayes_mfg.errors import InputError

from .arguments import Add, glance
from .jax_settings import set_up_jax
from .places import in_folder


def add(command: Add) -> None:
    """Declare the command."""
    parser = command("simulate", run, "simulate data from a config's game and true parameters into a tidy CSV file")
    parser.add_argument("config", metavar="CONFIG.toml")
    parser.add_argument("--out", metavar="FILE.csv", help="a file that does not exist yet (default: NAME.csv)")
    parser.add_argument("--seed", type=int, metavar="N", help="instead of the config's [simulation] seed")


def run(options: argparse.Namespace, words: str) -> None:
    """Write both files, or neither."""
    glance(options.config)
    set_up_jax()
    from bayes_mfg.config.simulation import load_simulation

    simulation = load_simulation(options.config, seed=options.seed)
    target = Path(options.out or f"{simulation.name}.csv")
    truth = target.with_suffix(".json")
    if target == truth:
        raise InputError(f"{target}: the truth beside the data ends in .json; give the data another ending, such as .csv.")
    for path in (target, truth):
        if path.exists():
            raise InputError(f"{path} exists already; choose another file with --out, or remove it.")
    in_folder(target)
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
