"""Milliseconds of processor time that one core needs for a clip of Moving Things (16 frames, 64 x 64 pixels).

    OMP_NUM_THREADS=1 python benchmarks/bench_moving_things.py

Processor time of this process and not time on the clock, so that other programs on the machine matter less;
of eleven repetitions the median and the least. The aim is less than 3 ms.
"""

import statistics
import time

from minit2v.datasets.moving_things import MovingThings
from minit2v.datasets.moving_things.phrases import LEVELS

REPETITIONS, CLIPS = 11, 64


def milliseconds(data: MovingThings) -> list[float]:
    """Processor time per clip of batches of CLIPS clips, sorted."""
    data.batch(range(CLIPS))  # builds the distance tables
    times = []
    for repetition in range(REPETITIONS):
        start = time.process_time()
        data.batch(range(repetition * CLIPS, (repetition + 1) * CLIPS))
        times.append((time.process_time() - start) / CLIPS * 1000)
    return sorted(times)


if __name__ == "__main__":
    print("level  what      median    least   (ms of one core an item)")
    for level in LEVELS:
        for what, images in (("clips", False), ("pictures", True)):
            times = milliseconds(MovingThings("train", level, images=images))
            print(f"{level!s:5}  {what:8} {statistics.median(times):7.3f}  {times[0]:7.3f}")
