"""What this installation is made of, and whether it works: `minit2v doctor`."""

import os
import platform


def examine() -> int:
    """Print one line for each check; the exit status, 1 if one of them fails."""
    checks = {"machine": _machine, "torch": _torch, "card": _card, "video": _video, "weights": _weights}
    status = 0
    for name, check in checks.items():
        try:
            print(f"{name:12}{check()}")
        except Exception as error:  # a broken package may raise anything: name it and go on
            status = 1
            print(f"{name:12}WRONG: {type(error).__name__}: {error}")
    return status


def _machine():
    memory = "unknown"
    if hasattr(os, "sysconf"):  # POSIX only
        memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GB"
    return f"Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} cores, {memory} memory"


def _torch():
    import torch
    import torchvision

    torch.ops.torchvision.nms  # missing where torchvision was built for another torch
    return f"{torch.__version__}, torchvision {torchvision.__version__}, {torch.get_num_threads()} threads"


def _card():
    from minit2v.memory.card import describe_card

    return describe_card()


def _video():
    import av

    av.codec.Codec("libx264", "w")
    return f"PyAV {av.__version__} with libx264"


def _weights():
    import minit2v

    pipe = minit2v.load("mini", device="cpu")
    count = sum(p.numel() for p in pipe.unet.parameters())
    return f"mini loads, {count:,} parameters in its UNet; files with a sha256 inside hold what was written"
