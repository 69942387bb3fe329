"""Example configs; `bayes-mfg demo` runs `school_outbreak.toml`."""
