"""`python -m bayes_mfg` is the same as `bayes-mfg`."""

import sys

from bayes_mfg.cli import main

if __name__ == "__main__":
    sys.exit(main())
