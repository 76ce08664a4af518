"""Moving Things: clips drawn by a program, with captions that say exactly what is to be seen."""

from minit2v.datasets.moving_things.captions import Spec, Thing, caption, parse
from minit2v.datasets.moving_things.dataset import MovingThings, Sample
from minit2v.datasets.moving_things.phrases import words

__all__ = ["MovingThings", "Sample", "Spec", "Thing", "caption", "parse", "words"]
