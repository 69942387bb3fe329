"""Errors that a user can act on: each message is one sentence that names the place, the value, and what was expected."""


class InputError(ValueError):
    """Bad input, refused at the door.

    Every check of the library on what a user passed in (a file, a field of a config, an argument) raises this
    class or one of its children. The command line prints the message and leaves with exit status 2.
    """


class DataError(InputError):
    """Bad observations: a file, column, row or array that does not describe a population."""


class ConfigError(InputError):
    """Bad configuration: an unknown key, a missing field, or a value outside what the field accepts."""
