"""The moving picture at the top of the README: python scripts/front_picture.py docs/front.webp

Eight prompts with the shipped model's clip of each, all from seed 0 and with the model's own settings. Prints what the
judge reads in each clip.
"""

import sys
import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import minit2v
from minit2v.evaluation.judge import read
from minit2v.files import say

PROMPTS = (
    "a large red circle moves left",
    "a small blue ring moves up",
    "a big green cross moves down slowly",
    "a tiny white moon moves right quickly",
    "a large yellow triangle moves right",
    "a small cyan square moves left slowly",
    "a huge white circle moves up quickly",
    "a little green ring moves down",
)
COLUMNS = 4  # clips side by side
SCALE = 2  # every pixel becomes a square of SCALE x SCALE
GAP, TEXT, LETTERS = 8, 34, 22  # pixels between clips; height of a caption in pixels; width of its lines in letters
BACKGROUND, INK = (13, 17, 23), (201, 209, 217)


def label(words: str, width: int) -> np.ndarray:
    """Words in lines, centred: uint8 (TEXT, width, 3)."""
    picture = Image.new("RGB", (width, TEXT), BACKGROUND)
    lines, font = textwrap.fill(words, LETTERS), ImageFont.load_default(11)
    ImageDraw.Draw(picture).multiline_text((width // 2, 3), lines, INK, font, anchor="ma", align="center", spacing=2)
    return np.asarray(picture)


def sheet(clips: list[np.ndarray], captions: list[str]) -> np.ndarray:
    """Enlarged clips uint8 (f, H, W, 3) in rows of COLUMNS, each above its caption: uint8 (f, H', W', 3)."""
    f, H, W, _ = clips[0].shape
    H, W, rows = SCALE * H, SCALE * W, -(-len(clips) // COLUMNS)
    canvas = np.empty((f, rows * (GAP + H + TEXT), COLUMNS * (GAP + W) + GAP, 3), np.uint8)
    canvas[:] = BACKGROUND
    for i, (clip, words) in enumerate(zip(clips, captions)):
        row, column = divmod(i, COLUMNS)
        top, left = GAP + row * (GAP + H + TEXT), GAP + column * (GAP + W)
        canvas[:, top : top + H, left : left + W] = clip.repeat(SCALE, axis=1).repeat(SCALE, axis=2)
        canvas[:, top + H : top + H + TEXT, left : left + W] = label(words, W)
    return canvas


def main(out: str) -> None:
    pipe = minit2v.load("mini", device="cpu")
    clips = [pipe(prompt, seed=0) for prompt in PROMPTS]
    for prompt, clip in zip(PROMPTS, clips):
        say(f"{prompt}\n    {read(clip.pixels)}")
    first, *others = map(Image.fromarray, sheet([clip.pixels for clip in clips], PROMPTS))
    duration = round(1000 / clips[0].fps)
    # lossy, unlike `Clip.save`: a fifth of the bytes, and the eye sees no difference
    first.save(out, save_all=True, append_images=others, duration=duration, loop=0, quality=90, method=6)
    say(out)


if __name__ == "__main__":
    main(sys.argv[1])
