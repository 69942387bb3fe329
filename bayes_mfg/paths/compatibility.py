"""A repair of NumPyro's packages where ArviZ was imported before them."""

import sys


def complete_numpyro() -> None:
    """Give NumPyro's packages those of their modules as attributes that they have lost.

    ArviZ 1.x registers NumPyro to be loaded on first use. A program that then imports `numpyro.distributions` executes that package twice, and the
    second time it lacks the names of modules that are loaded already; `numpyro.factor`, for one, needs them.
    """
    for name, module in list(sys.modules.items()):
        parent, _, child = name.rpartition(".")
        package = sys.modules.get(parent)
        if name.startswith("numpyro.") and package is not None and child not in vars(package):
            setattr(package, child, module)
