"""Record the trainings of notebook 09 again: data/runs/nano-video-*.npz, nano-pictures.json. About an hour on one core.

    OMP_NUM_THREADS=1 python scripts/record_nano.py          goes on after a stop; the runs are kept in runs/nano

The autoencoder and the text tower of nano are trained for 800 steps each, then its UNet twice, with pictures and
without (`minit2v.lab.course.video_trainings`). The clips of both models for the first prompts of two splits are judged.
"""


import torch
from judging import verdicts

from minit2v.files import data_dir, say, write_json
from minit2v.lab.course.video_trainings import VARIANTS, recorded, verdicts_path
from minit2v.training.run import run

ROOT = data_dir().parent
PARTS_STEPS = 800  # of autoencoder and text tower
JUDGED = {"test_imageonly": 64, "test_seen": 32}  # split -> how many of its prompts


def main():
    torch.set_num_threads(1)  # another number adds up in another order, and after hundreds of steps that shows
    folder, found = ROOT / "runs/nano", {}
    for part in ("autoencoder", "text"):
        if not (folder / f"{part}.safetensors").is_file():
            run(part, "nano", folder, resume=(folder / part / "checkpoint.pt").is_file(),
                settings={"train_steps": PARTS_STEPS, "sample_every": 1e9})  # fmt: skip
    for variant in VARIANTS:
        training, pipe = recorded(variant, folder)
        path = training.save(data_dir() / "runs" / f"nano-video-{variant.replace(' ', '-')}.npz")
        say(f"{path}  {path.stat().st_size:,} bytes")
        found[variant] = {split: verdicts(pipe, split, n) for split, n in JUDGED.items()}
        write_json(verdicts_path(), found, indent=None)


if __name__ == "__main__":
    main()
