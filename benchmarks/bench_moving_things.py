"""Measures the processor time to draw a clip of Moving Things (16 frames of 64 x 64 pixels) on one core.

    OMP_NUM_THREADS=1 python benchmarks/bench_moving_things.py

Prints the median and the minimum of eleven repetitions, in milliseconds. Processor time, unlike time on the clock,
hardly depends on other programs. The target is 3 ms.
"""

import statistics
import time

from minit2v.datasets.moving_things import MovingThings
from minit2v.datasets.moving_things.phrases import LEVELS

REPETITIONS, CLIPS = 11, 64


def milliseconds(data: MovingThings) -> list[float]:
    """Processor time per clip in batches of CLIPS clips, sorted."""
    data.batch(range(CLIPS))  # builds the distance tables
    times = []
    for repetition in range(REPETITIONS):
        start = time.process_time()
        data.batch(range(repetition * CLIPS, (repetition + 1) * CLIPS))
        times.append((time.process_time() - start) / CLIPS * 1000)
    return sorted(times)


if __name__ == "__main__":
    print("level  what      median  minimum   (ms per item)")
    for level in LEVELS:
        for what, images in (("clips", False), ("pictures", True)):
            times = milliseconds(MovingThings("train", level, images=images))
            print(f"{level!s:5}  {what:8} {statistics.median(times):7.3f}  {times[0]:7.3f}")
