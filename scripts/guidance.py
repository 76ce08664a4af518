"""The lecturer's answers to the question about guidance: python scripts/guidance.py docs/guidance.json

Samples six clips of one prompt with each guidance scale, as the cell in notebooks/README.md does, and counts the clips in
which the judge reads everything that the prompt says.
"""

import sys
from pathlib import Path

import minit2v
from minit2v.checkpoints.find import find_model, fingerprint
from minit2v.evaluation.judge import read
from minit2v.files import say, write_json

PROMPT, CLIPS, SEED = "a small blue ring moves up", 6, 7
SCALES = (0, 1, 1.5, 3, 12, 30)


def right(pixels) -> bool:
    """Does a clip show a small blue ring that moves up?"""
    found = read(pixels)
    return (found.size, found.colour, found.shape, found.motion) == ("small", "blue", "ring", "up")


def main(out: str) -> None:
    pipe, counts = minit2v.load("mini", device="cpu"), {}
    for scale in SCALES:
        clips = pipe([PROMPT] * CLIPS, guidance=scale, seed=SEED)
        counts[f"{scale:g}"] = sum(right(clip.pixels) for clip in clips)
        say(f"guidance {scale:g}: {counts[f'{scale:g}']} of {CLIPS}")
    kept = {"weights": fingerprint(find_model("mini")), "clips": CLIPS, "right": counts}
    write_json(Path(out), kept)


if __name__ == "__main__":
    main(sys.argv[1])
