"""Record again the clips that notebook 13 measures: data/clip_sets/NAME.npz, of the shipped mini model.

    python scripts/record_clips.py            after a new data/mini; two minutes on two cores

mini-test: the first 48 prompts of the split test_seen, noise numbers 0 to 47. mini-open: eight prompts that leave size
and speed open, eight seeds of each, noise numbers 0 to 63. All clips are kept as they came, good or bad.
"""

import numpy as np

import minit2v
from minit2v.datasets.moving_things import MovingThings
from minit2v.files import data_dir
from minit2v.recording.clip_set import ClipSet

CLIPS = {"mini-test": 48, "mini-open": 64}
BATCH = 16
OPEN = ("a red circle moves left", "a blue ring moves up", "a green square moves down", "a white cross moves left",
        "a cyan triangle moves right", "a yellow moon moves up", "a yellow square moves right", "a red moon moves down")


def prompts() -> dict[str, list[str]]:
    """{name of a set: its prompts}; those of mini-open come eight times each, one prompt after the other."""
    test = MovingThings("test_seen")
    return {"mini-test": [test.text(i)[0] for i in range(CLIPS["mini-test"])],
            "mini-open": [prompt for prompt in OPEN for _ in range(CLIPS["mini-open"] // len(OPEN))]}


def made(pipe, texts: list[str]) -> ClipSet:
    """A clip of each prompt with the model's own settings; prompt i starts from noise number i."""
    settings = {"sampler": "ddim", "steps": pipe.preset.steps, "guidance": pipe.preset.guidance}
    clips = [clip for i in range(0, len(texts), BATCH) for clip in pipe(texts[i : i + BATCH], seed=i, **settings)]
    return ClipSet("mini", settings, texts, np.arange(len(texts)), np.stack([clip.pixels for clip in clips]))


def main():
    pipe = minit2v.load("mini", device="cpu")
    folder = data_dir() / "clip_sets"
    folder.mkdir(exist_ok=True)
    for name, texts in prompts().items():
        path = made(pipe, texts).save(folder / f"{name}.npz")
        print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
