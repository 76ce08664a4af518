"""Memory as the system counts it: free memory, the memory of this process, and its peak."""

import os
from pathlib import Path

import torch

RUNTIME = 0.8e9  # Python, PyTorch and open_clip in the computer's memory, before any weights; see `runtime`


def available(device: str) -> float | None:
    """Bytes that are free on the device now; None where the system does not say."""
    if device == "cuda" and torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    if device == "cuda":
        return None
    path = Path("/proc/meminfo")
    if not path.is_file():
        return None
    return next(float(line.split()[1]) * 1024 for line in path.read_text().splitlines() if "MemAvailable" in line)


def runtime() -> float:
    """Bytes of a process before any weights: those of this one, at most RUNTIME."""
    path = Path("/proc/self/statm")
    if not path.is_file():
        return RUNTIME
    return min(RUNTIME, int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))


def peak() -> int:
    """Peak memory of this process so far, in bytes.

    Linux's /proc counts from the start of the program; its `ru_maxrss` begins with what the parent process held.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on a Mac
