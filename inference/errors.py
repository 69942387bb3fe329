"""Ways in which inference can fail."""


class FitError(RuntimeError):
    """A fit could not be made; the message is one sentence that says what went wrong and what to try."""
