"""JAX as the command line wants it: double precision, and compiled programs kept between runs."""

import contextlib
import os
import sys
import time
import warnings
from pathlib import Path

CACHE_DAYS = 90
"""Compiled programs that were not used for this long are removed from the cache."""


def set_up_jax() -> None:
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
