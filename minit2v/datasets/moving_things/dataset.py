"""Moving Things: captioned clips drawn by a program, so that the truth about every clip is known exactly.

    MovingThings("train")[7]  ->  frames (16, 64, 64, 3) uint8, "a small red circle moves left", Spec(...)

    level 1   one thing: 6 shapes x 6 colours x 2 sizes x 4 directions x 2 speeds, on one dark background
    level 2   + diagonals, circles, bounces, rest; growing, shrinking, blinking; three backgrounds
    level 3   + two things in a relation, or one to three equal ones, smaller and slower so that they fit
    level 4   + two motions in a sequence, "right, then up"
    level R   as level 1, with photographs of clothes and shoes (Fashion-MNIST) instead of coloured shapes

The test splits measure what a model makes of combinations that are missing from `train`:

    test_seen        combinations of train, new clips
    test_heldout     combinations that occur nowhere in train and val, neither in clips nor in pictures: 20 % of the
                     pairs (shape, colour), 20 % of (shape, motion), 10 % of (colour, size, speed); every value and
                     every other pair does occur
    test_imageonly   moving things whose shape or colour train shows in still pictures only
    test_long        32 frames, slow, so that things stay in the picture

A clip is a pure function of (split, level, images, index): nothing is stored and train has a million items.
Sync-DRAW's captioned Moving MNIST (Mittal, Marwah and Balasubramanian 2017) held combinations out likewise.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np

from minit2v.datasets.base import Batch
from minit2v.datasets.moving_things import sprites
from minit2v.datasets.moving_things.captions import Spec, Thing, caption
from minit2v.datasets.moving_things.phrases import LANGUAGES, LEVELS
from minit2v.datasets.moving_things.render import COLOURS, SHAPES
from minit2v.datasets.moving_things.scenes import DIRECTIONS, RADIUS, SIDES, SPEED, render
from minit2v.errors import UserError
from minit2v.ranges import Size, public

SPLITS = {
    "train": 1_000_000, "val": 512,
    "test_seen": 512, "test_heldout": 512, "test_imageonly": 512, "test_long": 256,
}  # fmt: skip
LONGEST, LONGEST_SLOW = 16, 32  # frames for which a quick thing, a slow thing stays in the picture
FOUR = ("left", "right", "up", "down")
TWELVE = (*DIRECTIONS, "stays", "clockwise", "counter-clockwise", "bounces")
MOTIONS = {1: FOUR, 2: TWELVE, 3: TWELVE, 4: FOUR, "R": FOUR}
PATTERNS = ("dark", "striped", "checkered")  # backgrounds of levels 2 to 4
CHANGES = (None, "grows", "shrinks", "blinks")  # level 2

UNSAID = 0.15  # chance that a caption of train leaves the size out; likewise the speed
IMAGE_ONLY = frozenset({"heart", "star", "purple", "orange", "sandal", "bag"})
IMAGE_ONLY_SHARE = 0.25  # of the pictures of train and val
HELD_OUT_LOOKS = frozenset({  # each shape loses one colour or two, and the other way round
    ("circle", "yellow"), ("square", "cyan"), ("triangle", "white"), ("triangle", "green"), ("cross", "red"),
    ("ring", "green"), ("moon", "blue"),
})  # fmt: skip
HELD_OUT_MOTIONS = frozenset({  # each shape loses at most one of FOUR, and of the others one or two
    ("circle", "down"), ("square", "left"), ("triangle", "up"), ("cross", "right"), ("ring", "left"),
    ("circle", "up-left"), ("square", "up-right"), ("triangle", "down-left"), ("cross", "down-right"),
    ("ring", "stays"), ("moon", "clockwise"), ("circle", "counter-clockwise"), ("square", "bounces"),
    ("triangle", "stays"), ("moon", "up-right"),
    ("t-shirt", "left"), ("trousers", "right"), ("pullover", "up"), ("dress", "down"), ("coat", "left"),
    ("shirt", "right"),
})  # fmt: skip
HELD_OUT_PACES = frozenset({("cyan", "small", "quickly"), ("red", "large", "slowly")})


class Sample(NamedTuple):
    frames: np.ndarray  # (f, H, H, 3) uint8
    caption: str
    spec: Spec  # the whole truth, also where the caption is silent


class _Item(NamedTuple):
    spec: Spec
    caption: str
    uniforms: tuple[float, ...]  # four in 0..1: place across, place down, phase of the motion, which photograph


def held_out(spec: Spec) -> bool:
    """Whether the spec contains a combination that never occurs in train and val."""
    return any(
        (thing.shape, thing.colour) in HELD_OUT_LOOKS
        or (thing.shape, thing.motion) in HELD_OUT_MOTIONS
        or (thing.shape, spec.then) in HELD_OUT_MOTIONS
        or (thing.colour, thing.size, thing.speed) in HELD_OUT_PACES
        for thing in spec.things
    )


class MovingThings:
    """One split of Moving Things, a sequence of `Sample`.

    split: one of SPLITS. level: 1 to 4 or "R". size: height and width in pixels. frames: 1 to 16 (test_long: to 32),
    by default all of them. images=True: still pictures, one frame, no motion words. language: "en" or "zh".
    Raises UserError for anything else, IndexError beyond the end.

    >>> data = MovingThings("test_seen", size=32)
    >>> len(data), data[0].frames.shape
    (512, (16, 32, 32, 3))
    """

    @public
    def __init__(self, split: str, level: int | str = 1, size: Size = 64, frames: Size | None = None,
                 images: bool = False, language: str = "en"):  # fmt: skip
        longest = LONGEST_SLOW if split == "test_long" else LONGEST
        frames = 1 if images else longest if frames is None else frames
        choices = {"split": (split, SPLITS), "level": (level, LEVELS), "language": (language, LANGUAGES)}
        for what, (found, known) in choices.items():
            if found not in known:
                raise UserError(f"expected a {what} of {', '.join(map(str, known))}, found {found!r}")
        if not 1 <= frames <= longest:
            raise UserError(f"expected 1 to {longest} frames, found {frames}: in more, things leave the picture")
        if size < 8:
            raise UserError(f"expected a picture of at least 8 pixels, found {size}")
        if images and level == "R" and split == "test_heldout":
            raise UserError("expected clips, found images=True: level R holds out motions only, take test_seen")
        self.split, self.level, self.size, self.frames = split, level, size, frames
        self.images, self.language = images, language
        self._stream = zlib.crc32(f"{split} {level} {images}".encode())
        self._looks, self._new_looks = [], []
        for look in product(sprites.CLASSES, [None]) if level == "R" else product(SHAPES, COLOURS):
            (self._new_looks if IMAGE_ONLY & set(look) else self._looks).append(look)

    def __len__(self) -> int:
        return SPLITS[self.split]

    def __getitem__(self, index: int) -> Sample:
        frames, captions, specs = self.batch([index])
        return Sample(frames[0], captions[0], specs[0])

    @public
    def batch(self, indices: Iterable[int]) -> Batch:
        """The clips with these numbers: frames (b, f, H, H, 3) uint8, b captions, b specs."""
        items = [self._item(int(index)) for index in indices]
        specs = [item.spec for item in items]
        uniforms = np.array([item.uniforms for item in items])
        photos = self._photos(specs, uniforms[:, 3]) if self.level == "R" else None
        frames = render(specs, uniforms[:, :3], self.size, self.frames, photos)
        return Batch(frames, [item.caption for item in items], specs)

    def text(self, index: int) -> tuple[str, Spec]:
        """Caption and spec of one clip, without drawing it."""
        item = self._item(index)
        return item.caption, item.spec

    def _item(self, index: int) -> _Item:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.split} has {len(self)} clips, found index {index}")
        rng = _uniforms(np.random.Generator(np.random.Philox(key=(self._stream, index))))
        place = next(rng), next(rng)
        spec = self._spec(rng)
        if self.split == "train":
            said = train_caption(spec, lambda: next(rng), self.language)
        else:
            said = caption(spec, self.language, style=index)
        return _Item(spec, said, (*place, next(rng), next(rng)))

    def _spec(self, rng: Iterator[float]) -> Spec:
        """A spec of this split, all with equal chance: specs are drawn until one belongs to it."""
        share = float(self.split == "test_imageonly")
        if self.images and self.split in ("train", "val"):
            share = IMAGE_ONLY_SHARE
        looks = self._new_looks if next(rng) < share else self._looks
        while held_out(spec := self._any_spec(looks, rng)) != (self.split == "test_heldout"):
            pass
        return spec

    def _any_spec(self, looks: list[tuple], rng: Iterator[float]) -> Spec:
        def pick(options):
            return options[int(next(rng) * len(options))]

        thing = Thing(*pick(looks), pick(tuple(RADIUS)))
        extra = {}
        if not self.images:
            thing = replace(thing, motion=pick(MOTIONS[self.level]))
            if thing.motion != "stays":
                thing = replace(thing, speed=pick(("slowly",) if self.split == "test_long" else tuple(SPEED)))
            if self.level == 2:
                thing = replace(thing, change=pick(CHANGES))
            if self.level == 4:
                extra["then"] = pick([motion for motion in FOUR if motion != thing.motion])
        things = (thing,)
        if self.level in (2, 3, 4):
            extra["background"] = pick(PATTERNS)
        if self.level == 3 and pick((True, False)):
            shape, colour = pick([look for look in looks if look != (thing.shape, thing.colour)])
            things += (replace(thing, shape=shape, colour=colour, size=pick(tuple(RADIUS))),)
            extra["relation"] = pick(tuple(SIDES))
        elif self.level == 3:
            extra["count"] = pick((1, 2, 3))
        return Spec(things, **extra)

    def _photos(self, specs: list[Spec], uniforms: np.ndarray) -> np.ndarray:
        """Photographs (b, k, k) of the specs' classes; those of train never occur elsewhere."""
        cut = sprites.FOR_TRAINING
        first, last = (0, cut) if self.split == "train" else (cut, sprites.A_CLASS)
        numbers = [int(first + u * (last - first)) for u in uniforms]
        things = [spec.things[0] for spec in specs]
        widths = np.array([2 * self.size * RADIUS[thing.size] for thing in things])
        return sprites.photos([thing.shape for thing in things], numbers, widths)


def train_caption(spec: Spec, uniform: Callable[[], float], language: str = "en") -> str:
    """A caption as `train` has them: in any wording, without the size or the speed now and then. `uniform` draws a number
    of 0..1."""
    unsaid = {slot: None for slot in ("size", "speed") if uniform() < UNSAID}
    said = replace(spec, things=tuple(replace(thing, **unsaid) for thing in spec.things))
    return caption(said, language, style=int(uniform() * 2**30))


def _uniforms(generator: np.random.Generator) -> Iterator[float]:
    """Random numbers in 0..1, without end."""
    while True:
        yield from generator.random(16).tolist()
