"""Amounts of memory, as people write them. Imports nothing heavy."""

from minit2v.errors import UserError

UNITS = {"GB": 1e9, "GIB": 2**30, "MB": 1e6, "MIB": 2**20}


def as_bytes(memory: float | str | None) -> float | None:
    """Bytes of "8GB", "7.5 GiB" or "500MB"; a number is bytes already. Raises UserError.

    >>> as_bytes("8GB"), as_bytes("1 GiB")
    (8000000000.0, 1073741824.0)
    """
    if not isinstance(memory, str):
        return memory
    text = memory.strip().upper()
    unit = next((unit for unit in UNITS if text.endswith(unit)), None)
    try:
        amount = float(text.removesuffix(unit)) if unit else -1.0
    except ValueError:
        amount = -1.0
    if not 0 < amount < 1e9:
        raise UserError(f"memory: expected an amount as 8GB or 500MB, found {memory!r}")
    return amount * UNITS[unit]


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
