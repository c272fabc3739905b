"""Features as the evaluator takes them: from anywhere, a block of rows at a time, as float32 on one device."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reid_kit.device import usable_device as device_of
from reid_kit.errors import InputError, NonFiniteError

Array = np.ndarray | Tensor
ROWS_CHECKED = 4096  # at a time


def as_tensor(values: Array) -> Tensor:
    """An array as numpy and torch have them, as a tensor without a graph: a view where torch can look at it.

    Raises:
        InputError: no real numbers.
    """
    if isinstance(values, Tensor):
        values = values.detach()
        if values.is_complex() or values.layout != torch.strided:
            raise InputError(f"features and distances must be dense real numbers, got {values.dtype} {values.layout}")
        return values
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise InputError(f"features and distances must be real numbers, got an array of {array.dtype}")
    backwards = any(stride < 0 for stride in array.strides)
    if backwards or not array.dtype.isnative or array.dtype.itemsize > 8:  # longdouble
        array = array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writ")  # it is read alone
        return torch.as_tensor(array)


class FeatureRows:
    """Rows of (N, D) features: a tensor on any device, an array, a memory-mapped file; of any float type.

    squared_norms: (N,) float32 on the device.

    Args:
        hold: keep them on the device, as float32, where it is no CPU and has the room: each is copied there once.

    Raises:
        InputError: no (N, D) array of real numbers, or no row in it; a zero row where the metric is cosine.
        NonFiniteError: a row holds NaN, infinity, or values whose squares overflow.
    """

    def __init__(self, features: Array, name: str, device: torch.device, cosine: bool = False, hold: bool = False):
        if getattr(features, "ndim", None) != 2 or 0 in features.shape:
            shape = tuple(getattr(features, "shape", ()))
            raise InputError(f"{name} features must be (N, D) with at least one row, got {shape or type(features)}")
        self.features, self.name, self.device, self.cosine = features, name, device, cosine
        held = None
        if (
            hold
            and device.type != "cpu"
            and not self.ready
            and 4 * features.shape[0] * features.shape[1] < room(device)
        ):
            held = torch.empty(features.shape, device=device)
        norms = []
        for start in range(0, len(features), ROWS_CHECKED):
            rows = self.block(slice(start, start + ROWS_CHECKED))
            norms.append(rows.square().sum(1))
            if held is not None:
                held[start : start + ROWS_CHECKED] = rows
        self.features = features if held is None else held
        self.squared_norms = torch.cat(norms)
        self._check()

    def __len__(self) -> int:
        return len(self.features)

    @property
    def width(self) -> int:
        return self.features.shape[1]

    @property
    def ready(self) -> bool:
        """Whether blocks are views of the features, which take no memory."""
        first = as_tensor(self.features[:1])
        if not isinstance(self.features, Tensor) and min(self.features.strides) < 0:
            return False
        return first.dtype == torch.float32 and first.device == self.device

    def block(self, part: slice | np.ndarray) -> Tensor:
        """(n, D) float32 rows on the device."""
        if isinstance(self.features, Tensor) and not isinstance(part, slice):
            part = to_device(part, self.features.device)
        rows = as_tensor(self.features[part])
        if rows.element_size() < 4:  # half the bytes travel
            rows = rows.to(self.device)
        return rows.to(self.device, torch.float32)

    def _check(self) -> None:
        """Looks at the norms of all rows at once, and for the rows of each kind of fault where one is found."""
        if not torch.isfinite(self.squared_norms).all():
            starts = range(0, len(self), ROWS_CHECKED)
            finite = [torch.isfinite(self.block(slice(start, start + ROWS_CHECKED))).all(1) for start in starts]
            self._refuse(~torch.cat(finite), NonFiniteError, "hold NaN or infinity")
            wide = ~torch.isfinite(self.squared_norms)
            self._refuse(wide, NonFiniteError, "are too large: their squares overflow float32")
        if self.cosine:
            self._refuse(self.squared_norms == 0, InputError, "are zero (or their squares are), which have no cosine")

    def _refuse(self, bad: Tensor, error: type[InputError], what: str) -> None:
        if bad.any():
            first = bad.nonzero().flatten()[:5].tolist()
            raise error(f"{int(bad.sum())} {self.name} features {what}, first rows {first}")


def to_device(positions: np.ndarray, device: torch.device) -> Tensor:
    """Positions there, without a wait for what the device is at."""
    host = torch.from_numpy(positions)
    return (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)


def room(device: torch.device) -> float:
    """Bytes that features may take on a device: half of what is free there; no bound where that is not known."""
    if device.type != "cuda":
        return float("inf")
    free = torch.cuda.mem_get_info(device)[0]
    return (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)) / 2


def integer_labels(values: Array | Sequence[int], count: int, name: str) -> np.ndarray:
    """(count,) int64 identities or cameras.

    Raises:
        InputError: another length, or no integers.
    """
    try:
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # lists of several lengths, bfloat16
        raise InputError(f"{name} must be integers: {error}") from error
    if array.shape != (count,):
        raise InputError(f"{name} must hold one integer for each of the {count} features, got shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise InputError(
            f"{name} must be integers, got {array.dtype}; numpy.unique(names, return_inverse=True) makes numbers of "
            f"names, over query and gallery together"
        )
    if count and array.dtype.kind == "u" and int(array.max()) > np.iinfo(np.int64).max:
        raise InputError(f"{name} hold {int(array.max())}, above what an int64 can hold; number the identities anew")
    return array.astype(np.int64)


def usable_device(device: str | torch.device | None, features: Array) -> torch.device:
    """The device, or where it is None that of the features, once it has held a tensor.

    Raises:
        InputError: it is not there.
    """
    return device_of(device if device is not None else getattr(features, "device", "cpu"))
