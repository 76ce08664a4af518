"""Where networks run and in which precision: names that users type, as torch's devices and dtypes."""

import warnings

import torch

from minit2v.errors import UserError
from minit2v.ranges import public
from minit2v.ranks import own_card

DEVICES = ("cpu", "cuda", "mps")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@public
def find_device(name: str) -> torch.device:
    """What torch calls the device; "cuda" is this process' own card. Raises UserError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    name = own_card() if name == "cuda" else name
    kind, _, number = name.partition(":")
    if kind not in DEVICES or number and (kind != "cuda" or not number.isdecimal()):
        raise UserError(f"device: expected auto, {', '.join(DEVICES)} or a card like cuda:1, found {name!r}")
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch that was built without CUDA
        raise UserError(f"device: expected one that is here, found {name!r}: {str(error).splitlines()[0]}") from None


@public
def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of that name; "auto" is half precision where it is fast. Raises UserError for an unknown one."""
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise UserError(f"dtype: expected auto or one of {', '.join(DTYPES)}, found {name!r}")
    return DTYPES[name]


def warn_of_slow_bfloat16(bfloat16: bool) -> None:
    """Warns where float32 is faster."""
    if bfloat16 and not torch.cuda.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX2":
        warnings.warn("bfloat16: this CPU lacks AVX-512 and takes about five times as long as in float32; "
                      "--set bfloat16=false", stacklevel=3)  # fmt: skip
