"""A device that no machine lacks: its tensors compute on the CPU and refuse what a GPU's refuse.

    from tests.device.stand_in import COUNTS, DEVICE, start
    start()                                       # before reid_kit is imported, in a process of its own
    loss(embeddings.to(DEVICE), labels.to(DEVICE)).backward()
    COUNTS.waits                                  # {("_local_scalar_dense", "losses/base.py:130"): 1}

Tensors of different devices do not mix, .numpy() raises, and processes share no CPU tensors, as with NCCL. Counted are
the waits of the host for the device, the operators, and the bytes that tensors hold. It needs torch's Python backends
(experimental, in torch 2.14) and shows nothing of kernels, streams and speed.
"""

import collections
import sys
import weakref

import torch
from torch.utils import _pytree as tree
from torch.utils import backend_registration as registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

NAME = "standin"
DEVICE = f"{NAME}:0"
READING = {  # operators whose result, or its size, the host has to know before it goes on
    *("_local_scalar_dense", "equal", "nonzero", "masked_select", "bincount", "_unique2", "unique_dim", "_linalg_svd"),
    *("unique_consecutive", "is_nonzero"),
}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
BETWEEN = {"copy_", "_to_copy", "_foreach_copy_"}  # the operators that take tensors of two devices
AVAILABLE = hasattr(registration, "_setup_privateuseone_for_python_backend")


class Counts:
    """waits: (operator, file:line of reid_kit) -> times. launches: operator -> times. held, peak: bytes."""

    def __init__(self):
        self.waits, self.launches = collections.Counter(), collections.Counter()
        self.held = self.peak = 0
        self._storages: dict[int, int] = {}

    def clear(self) -> None:
        self.waits.clear()
        self.launches.clear()
        self.peak = self.held

    def wait(self, what: str) -> None:
        frame, place = sys._getframe(1), "elsewhere"
        while frame is not None:
            if "/reid_kit/" in frame.f_code.co_filename:
                place = f"{frame.f_code.co_filename.rsplit('/reid_kit/', 1)[1]}:{frame.f_lineno}"
                break
            frame = frame.f_back
        self.waits[what, place] += 1

    def hold(self, tensor: "DeviceTensor") -> None:
        """Counts the tensor's memory, once for all tensors that share it, for as long as one of them lives."""
        storage = tensor.content.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        users = self._storages.get(address, 0)
        self._storages[address] = users + 1
        if not users:
            self.held += size
            self.peak = max(self.peak, self.held)
        weakref.finalize(tensor, self._release, address, size).atexit = False

    def _release(self, address: int, size: int) -> None:
        self._storages[address] -= 1
        if not self._storages[address]:
            del self._storages[address]
            self.held -= size


COUNTS = Counts()


class DeviceTensor(torch.Tensor):
    """A tensor that says it is on the device; the CPU tensor `content` has its values."""

    @staticmethod
    def __new__(cls, content: torch.Tensor, device: torch.device):
        layout = {"strides": content.stride(), "storage_offset": content.storage_offset(), "dtype": content.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, content.size(), device=device, **layout)

    def __init__(self, content: torch.Tensor, device: torch.device):
        self.content = content
        COUNTS.hold(self)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return dispatch(function, args, kwargs or {})

    def numpy(self, *_, **__):
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *_, **__):
        return self.numpy()

    def tolist(self):
        COUNTS.wait("tolist")
        return self.content.tolist()

    def new_tensor(self, data, **options):
        return torch.tensor(data, dtype=options.get("dtype", self.dtype)).to(self.device)

    def __repr__(self, **_):
        return f"DeviceTensor({self.content!r})"

    def __reduce_ex__(self, protocol):
        return self.content.detach().__reduce_ex__(protocol)  # a checkpoint that is loaded on the CPU

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            with torch.no_grad():
                made = DeviceTensor(self.content.detach().clone(), self.device)
            keep = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = torch.nn.Parameter(made, self.requires_grad) if keep else made
        return memo[id(self)]


class Everywhere(TorchDispatchMode):
    """Sees the calls that no DeviceTensor takes part in: those that make one, and what processes exchange."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return dispatch(function, args, kwargs or {})


def dispatch(function, args, kwargs):
    """Runs an operator on the contents, where a GPU would run it."""
    space, name = function._schema.name.split("::")
    tensors = [value for value in tree.tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    there = [value for value in tensors if isinstance(value, DeviceTensor)]
    target = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    if space == "c10d" and name != "barrier" and len(there) < len(tensors):
        raise RuntimeError("No backend type associated with device type cpu")
    if not there and (target is None or target.type != NAME):
        return function(*args, **kwargs)
    if there and space == "aten" and name not in BETWEEN:
        refuse_mixed(name, args, tensors, there[0].device)
    count(name, args, kwargs, there, target)
    found = function(*tree.tree_map(content_of, args), **tree.tree_map(content_of, on_the_cpu(kwargs)))
    home = target or there[0].device
    if home.type != NAME or name == "_local_scalar_dense":
        return found
    known = {id(value.content): value for value in there}

    def placed(value):
        if id(value) in known and name != "_to_copy":
            return known[id(value)]
        return DeviceTensor(
            value.clone() if id(value) in map(id, tensors) else value, torch.device(NAME, home.index or 0)
        )

    found = tree.tree_map_only(torch.Tensor, placed, found)
    return return_and_correct_aliasing(function, args, kwargs, found) if there and space == "aten" else found


def content_of(value):
    return value.content if isinstance(value, DeviceTensor) else value


def on_the_cpu(kwargs: dict) -> dict:
    return {**kwargs, "device": torch.device("cpu")} if kwargs.get("device") is not None else kwargs


def refuse_mixed(name: str, args, tensors, device: torch.device) -> None:
    """A tensor of one value, and an index of a device's tensor, may be on the CPU; nothing else."""
    index = tree.tree_leaves(args[1]) if name in INDEXED else []
    home = args[0].device if index else device
    for tensor in tensors:
        alone = tensor.device.type == "cpu" and (tensor.ndim == 0 or any(tensor is each for each in index))
        if tensor.device != home and not alone:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, got {home} and {tensor.device}")


def count(name: str, args, kwargs, there, target) -> None:
    COUNTS.launches[name] += 1
    index = tree.tree_leaves(args[1]) if name in INDEXED else []
    index = [each for each in index if isinstance(each, torch.Tensor)]
    if there and (name in READING or any(each.dtype == torch.bool for each in index)):
        COUNTS.wait(name)
    elif any(each.device.type == "cpu" and each.ndim for each in index):
        COUNTS.wait("an index to the device")
    elif name == "_to_copy" and target is not None and target.type != args[0].device.type:
        if target.type == "cpu":
            COUNTS.wait("to the host")
        elif not kwargs.get("non_blocking"):
            COUNTS.wait("to the device")
    elif (
        name in ("copy_", "_foreach_copy_")
        and len({t.device.type for t in tree.tree_leaves(args[:2]) if isinstance(t, torch.Tensor)}) > 1
    ):
        COUNTS.wait("a copy")


class Module(registration._DummyBackendModule if AVAILABLE else object):
    """What torch asks a device's Python module for."""

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def device_count(self):
        return 2


def started() -> bool:
    return torch._C._get_privateuse1_backend_name() == NAME


def start() -> None:
    """The device is there for the rest of the process."""
    registration._setup_privateuseone_for_python_backend(NAME, Module())
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch.inference_mode = torch.no_grad  # within it torch does not ask a Python device
    for make in ("tensor", "as_tensor"):  # these copy out of a mode's sight
        setattr(torch, make, on_the_host_first(getattr(torch, make)))
    Everywhere().__enter__()


def on_the_host_first(make):
    def made(data, *args, device=None, **kwargs):
        found = make(data, *args, **kwargs)
        return found if device is None else found.to(device)

    return made
