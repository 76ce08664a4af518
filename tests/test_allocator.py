"""Freed memory is kept: the second time that a process works with it, the system has no pages to clear."""

import os
import subprocess
import sys

import pytest

from minit2v.memory.allocator import USER_OPTIONS

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
# page faults of 128 MB, in blocks that glibc never keeps by itself (over 32 MB), written to again after they were
# freed: the best of four rounds, as holes of the heap need not fit in each
RUN = """
import resource, sys
import torch
{before}
faults = []
for _ in range(5):
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(2**24) for _ in range(2)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start)
print(min(faults[1:]))
"""
LOAD = "import minit2v; minit2v.load('mini', device='cpu')"


def faults(before: str, **environment: str) -> int:
    kept = {name: value for name, value in os.environ.items() if name not in USER_OPTIONS}
    done = subprocess.run([sys.executable, "-c", RUN.format(before=before)], capture_output=True, text=True, check=True,
                          env=kept | {"OMP_NUM_THREADS": "1"} | environment)  # fmt: skip
    return int(done.stdout)


# how much the process grows while it looks up the tokens of 2,560 clips of 16 frames, in MB
TOKENS = """
import torch
from pathlib import Path
from types import SimpleNamespace
from minit2v.memory.allocator import keep_freed_memory
from minit2v.networks.bottleneck import Codebook
from minit2v.training.tokens import stored
megabytes = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
keep_freed_memory()
model, latents = SimpleNamespace(bottleneck=Codebook(1024, 16)), torch.randn(2560, 16, 16, 8, 8).half()
before = megabytes()
found = stored(latents, model, 1.0)
print(megabytes() - before)
assert found.shape == (2560, 16, 8, 8) and torch.equal(stored(latents[-3:], model, 1.0), found[-3:])
"""


@linux
def test_tokens_of_many_clips_take_little_memory():
    """Every look-up frees a block as large as its distances; the heap must not grow by one each time."""
    done = subprocess.run([sys.executable, "-c", TOKENS], capture_output=True, text=True, check=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert float(done.stdout) < 300


@linux
def test_a_loaded_model_works_in_memory_that_it_has_touched_before():
    usual, loaded = faults(""), faults(LOAD)
    assert loaded < usual / 2
    assert faults(LOAD, MALLOC_TRIM_THRESHOLD_="131072") > usual / 2, "who chooses for themselves is left alone"
