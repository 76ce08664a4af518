"""An unpickler that runs nothing: it builds tensors and plain containers, and puts an inert object for everything else.

A pickle is a program that imports functions and calls them. `torch.load(weights_only=True)` refuses all but a few, as
it should for a file of weights, but a whole training checkpoint also names classes of the training program. Here they
become `Inert`. Functions of the standard library are refused: no honest training leaves them behind.
"""

import pickle
import sys
from collections import OrderedDict

import torch

from minit2v.errors import UserError

HARMLESS = {  # names of the standard library in checkpoints of training programs
    "OrderedDict", "defaultdict", "Counter", "deque", "set", "frozenset", "dict", "list", "tuple", "int", "float",
    "complex", "bool", "str", "bytes", "bytearray", "slice", "range", "object", "encode", "_reconstructor", "Namespace",
    "PosixPath", "WindowsPath", "PurePosixPath", "datetime", "timedelta", "Any", "Decimal", "Fraction",
}  # fmt: skip


class Inert:
    """The placeholder for every object that a pickle asks for: takes any call and does nothing."""

    def __init__(self, *_, **__):
        pass

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, item):
        pass

    def extend(self, items):
        pass

    def add(self, item):
        pass

    def __hash__(self):
        return id(self)


class InertPickle:
    """The `pickle_module` of `torch.load`."""

    class Unpickler(pickle.Unpickler):
        TRUSTED = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
            ("torch._utils", "_rebuild_parameter"): lambda data, requires_grad, hooks: data,
            ("torch", "Size"): torch.Size,
        }

        def find_class(self, module: str, name: str):
            """Never imports anything. Raises UserError for functions of the standard library."""
            if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
                return dtype
            root = module.split(".")[0]
            if (root in sys.stdlib_module_names or root == "__builtin__") and name not in HARMLESS:
                raise UserError(f"the file wants to run {module}.{name}, which no model needs; do not trust its source")
            return self.TRUSTED.get((module, name), Inert)

    @staticmethod
    def load(*_, **__):
        raise pickle.UnpicklingError("older than PyTorch 1.6")
