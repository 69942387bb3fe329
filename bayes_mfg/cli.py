"""The command line: `bayes-mfg demo`, `fit`, `identify`, `design`, `study`, `simulate`, `report`, `intervene`, `reproduce`.

What a command does stands in `bayes_mfg.commands`; here are the frame of the parser, exit statuses and signals.
"""

import argparse
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from bayes_mfg import __version__
from bayes_mfg.commands import design, fit, identify, intervene, report, reproduce, simulate, study
from bayes_mfg.commands.arguments import Run
from bayes_mfg.errors import InputError


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


def program() -> NoReturn:
    """`main` as a process of its own, whose end is its exit status."""
    try:
        status = main()
    except SystemExit as leave:  # asked to end: threads may be inside compiled code, which an orderly end of the interpreter would tear down by force
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(leave.code or 0))
    sys.exit(status)


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

    def command(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        one.set_defaults(run=run)
        return one

    for one in (fit, identify, design, study, simulate, report, intervene, reproduce):
        one.add(command)
    return parser
