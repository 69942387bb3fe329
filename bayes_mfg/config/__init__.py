"""TOML configs of the command line: what they may hold is read off the classes that they name.

`calibration` has `load_config` and `build_model`, `simulation` has `load_simulation`. Nothing is imported here, so that a file
that is missing or is no TOML is refused before JAX is loaded.
"""
