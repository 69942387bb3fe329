"""Progress on a terminal, silence elsewhere."""

import sys
from typing import Any

from tqdm.auto import tqdm


def bar(total: int, what: str, show: bool | None) -> Any:
    """A progress bar of `total` steps; by default shown on a terminal only.

    Parameters
    ----------
    total : number of steps.
    what : one or two words.
    show : True or False to force it.
    """
    visible = sys.stderr.isatty() if show is None else show
    return tqdm(total=total, desc=what, disable=not visible, leave=False, mininterval=0.2)
