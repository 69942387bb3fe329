"""`python -m bayes_mfg` is the same as `bayes-mfg`."""

from bayes_mfg.cli import program

if __name__ == "__main__":
    program()
