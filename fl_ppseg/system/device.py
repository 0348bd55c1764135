"""Where a command computes: found out at once, not after the data were read."""

from fl_ppseg.system.errors import InputError


def check_device(name: str) -> None:
    """Find out whether torch can compute on a device.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, ...

    Raises:
        InputError: There is no such device here.
    """
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used here ({reason}); try cpu") from None
