"""Record the trainings of notebook 03 again: data/runs/nano-vqgan-*.npz. About three minutes each on one core.

    OMP_NUM_THREADS=1 python scripts/record_vqgan.py [late early never collapsed]

The nano autoencoder with a codebook, 1,500 steps of 16 frames of 32 pixels (`minit2v.lab.course.trainings.task_of`):

    late        the discriminator starts after 0.7 of the steps
    early       it starts with the first step
    never       it does not start
    collapsed   as late, but the codes begin in a tiny cube and are never restarted
"""

import sys

import torch

from minit2v.files import data_dir
from minit2v.lab.course.trainings import VARIANTS, record_training, task_of

STEPS = 1500
PICTURES_AT = [0, 10, 30, 60, 100, 150, *range(200, STEPS + 1, 100)]


def main(variants):
    torch.set_num_threads(1)  # another number adds up in another order, and after hundreds of steps that shows
    folder = data_dir() / "runs"
    folder.mkdir(exist_ok=True)
    for variant in variants or VARIANTS:
        run = record_training(task_of(variant), STEPS, variant, PICTURES_AT)
        path = run.save(folder / f"nano-vqgan-{variant}.npz")
        last = {key: round(float(y[-1]), 3) for key, (_, y) in run.curves.items()}
        print(f"{path}  {path.stat().st_size:,} bytes  {last}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
