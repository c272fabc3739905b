"""The device to compute on, once it has computed."""

import torch

from reid_kit.errors import InputError, shortened


def usable_device(device: str | torch.device, name: str = "device") -> torch.device:
    """The device, once it has added two numbers: some are known to torch and compute nothing.

    Args:
        name: what gave it, for the error.

    Raises:
        InputError: it is not there, or cannot compute.
    """
    try:
        one = torch.ones(1, device=device)
        (one + one).item()
        return one.device
    except (RuntimeError, AssertionError, ImportError, AttributeError, TypeError, ValueError) as error:
        why = str(error).split("\n")[0][:200]
        raise InputError(f"{name} {shortened(device)} cannot be used here ({why}); cpu always can") from error
