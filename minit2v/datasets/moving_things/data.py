"""Moving Things as training and evaluation ask for it: a `Dataset`, a `Probe` and a `Paraphraser`."""

import numpy as np

from minit2v.datasets.moving_things import sprites
from minit2v.datasets.moving_things.captions import Spec, caption, parse
from minit2v.datasets.moving_things.dataset import IMAGE_ONLY, MOTIONS, MovingThings, train_caption
from minit2v.datasets.moving_things.phrases import LANGUAGES, LEVELS, words
from minit2v.datasets.moving_things.render import COLOURS, SHAPES
from minit2v.datasets.moving_things.scenes import RADIUS, SPEED
from minit2v.datasets.moving_things.wrong_words import with_value, with_wrong
from minit2v.errors import UserError
from minit2v.ranges import Size, public

DRAWING = 1  # raise it when an item changes, so that kept latents of the old items are computed again
LOOKS = ("shape", "colour", "size")  # what a still picture shows


class MovingThingsData:
    """The row "moving-things" of `DATASETS`.

    level: 1 to 4 or "R", see `MovingThings`. language: of the captions, "en" or "zh": the same clips, said in the other
    language (the row "moving-things-zh"). Raises UserError for another one.

    >>> data = MovingThingsData()
    >>> data.open("val", frames=16, height=32, width=32).batch([0, 7]).frames.shape
    (2, 16, 32, 32, 3)
    """

    name = "moving-things"
    test_splits = ("test_seen", "test_heldout", "test_imageonly")

    @public
    def __init__(self, level: int | str = 1, language: str = "en"):
        known = {str(level): level for level in LEVELS}
        if str(level) not in known:
            raise UserError(f"level: expected one of {', '.join(known)}, found {level!r}")
        if language not in LANGUAGES:
            raise UserError(f"language: expected one of {', '.join(LANGUAGES)}, found {language!r}")
        self.level, self.language = known[str(level)], language
        self.name = self.name if language == "en" else f"{self.name}-{language}"
        looks = ("shape",) if self.level == "R" else ("shape", "colour")  # photographs have no colour
        self.attributes = (*looks, "size", "motion", "speed")

    @public
    def open(self, split: str, frames: Size, height: Size, width: Size, images: bool = False) -> MovingThings:
        """A split; with images=True `frames` is not used. Raises UserError for pictures that are not square."""
        if height != width:
            raise UserError(f"{self.name}: expected square pictures, found {width}x{height}; choose equal sides")
        return MovingThings(split, self.level, size=height, frames=frames, images=images, language=self.language)

    def words(self) -> list[str]:
        return words(self.level, self.language)

    def identity(self) -> str:
        return f"{self.name}, level {self.level}, drawing {DRAWING}"

    def paraphrase(self, spec: Spec, number: int) -> str:
        """A caption in some of its many wordings, which like those of train may leave out size and speed."""
        return train_caption(spec, np.random.default_rng(number).random, self.language)

    def right(self, spec: Spec) -> str:
        """The plainest caption of a spec; it says everything."""
        return caption(spec, self.language)

    def wrong(self, spec: Spec, attribute: str) -> str:
        """The same caption with a wrong value of one of `attributes`."""
        return caption(with_wrong(spec, attribute), self.language)

    def choices(self, spec: Spec, attribute: str) -> list[str]:
        """The plainest caption, then the same with each other value of the attribute; none for what a spec leaves None.

        >>> data = MovingThingsData()
        >>> data.choices(parse("a red circle moves left"), "motion")[:2]
        ['a red circle moves left', 'a red circle moves right']
        """
        thing = spec.things[0]
        value = getattr(thing, attribute)
        if value is None:
            return []
        known = {"shape": sprites.CLASSES if self.level == "R" else SHAPES, "colour": COLOURS, "size": RADIUS,
                 "motion": MOTIONS[self.level], "speed": SPEED}[attribute]  # fmt: skip
        others = [other for other in known if other != value and (thing.motion is None or other not in IMAGE_ONLY)]
        return [caption(with_value(spec, attribute, chosen), self.language) for chosen in (value, *others)]

    def meaning(self, caption: str) -> tuple[tuple, Spec]:
        """The looks of the first thing, as far as the caption says them, and all that it says."""
        said = parse(caption)
        return tuple(getattr(said.things[0], name) for name in LOOKS), said
