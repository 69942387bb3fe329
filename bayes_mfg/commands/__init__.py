"""The commands of `bayes-mfg`, one module each: `add` declares the arguments, and what the command does stands beside it.

JAX and what stands on it are imported inside functions, so that `--help` and a mistyped command answer at once, and so that
double precision is switched on before anything is computed.
"""
