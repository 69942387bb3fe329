"""Settings that every test shares. They stand here, before JAX starts, because the library never touches global configuration.

- float64, as on the command line: derivative and convergence tests are written for it. A test of float32 turns it off with
  `with jax.enable_x64(False):`.
- One compilation cache for all tests, workers and runs, in `.jax_cache` (`make clean` empties it), or where
  `JAX_COMPILATION_CACHE_DIR` says: most of a test's time is
  compilation, and a second run reads it back. JAX keys the entries by program, compiler options, version and processor, so that
  changed code is never answered with an old program.
- Figures go to memory, not to a screen.
- Compiled programs are forgotten between files once there are many: XLA maps each into memory by itself, and a process that reaches Linux's limit of
  65,530 maps dies where it stands (seen after 1,400 tests).

Left out on purpose:

- `jax_numpy_dtype_promotion="strict"` and `jax_numpy_rank_promotion="raise"`: NumPyro 0.22 mixes int64 and float64 in its
  distributions and stops under the first; the solver broadcasts `(d, d, M)` with `(M,)` on purpose and stops under the second.
- `XLA_FLAGS` that limit threads: solves, gradients and NUTS on this library's small arrays took as long with
  `--xla_cpu_multi_thread_eigen=false` as without, alone and with two workers on two cores.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"

import jax
import pytest

ROOT = Path(__file__).resolve().parents[1]

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(ROOT / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

MOST_MAPS = 10_000


@pytest.fixture(scope="module", autouse=True)
def _forget_programs() -> Iterator[None]:
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        gc.collect()
