"""Moving Things: clips drawn by a program, with captions that say exactly what is seen."""

from minit2v.datasets.moving_things.captions import Spec, Thing, caption, parse
from minit2v.datasets.moving_things.data import MovingThingsData
from minit2v.datasets.moving_things.dataset import MovingThings, Sample
from minit2v.datasets.moving_things.phrases import words

__all__ = ["MovingThings", "MovingThingsData", "Sample", "Spec", "Thing", "caption", "parse", "words"]
