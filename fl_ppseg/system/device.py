"""The device that a command computes on, checked before any data are read."""

from fl_ppseg.system.errors import InputError


def check_device(name: str) -> None:
    """Check that torch can compute on a device.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, ...

    Raises:
        InputError: The device cannot be used.
    """
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used here ({reason}); try cpu") from None
