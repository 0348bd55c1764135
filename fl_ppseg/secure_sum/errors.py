"""The one way in which a step of a secure sum fails."""


class SumError(ValueError):
    """A key, share, roster or sum is not what it has to be; the text holds no secret."""
