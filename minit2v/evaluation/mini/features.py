"""Features of clips by name, and the Fréchet distances that are measured with each.

    "motion"      ClipNet, trained on attributes and damage     FVD-mini
    "content"     ClipNet, trained on shape and colour          FVD-content
    "frame"       FrameNet                                      FID-vid
    "similarity"  picture tower of the metrics' CLIP            FID-vid (CLIP)
"""

from collections.abc import Callable

import numpy as np

from minit2v.errors import UserError
from minit2v.evaluation.mini.networks import HEADS, extract, load
from minit2v.evaluation.mini.similarity import Similarity

DISTANCES = {"FVD-mini": "motion", "FVD-content": "content", "FID-vid": "frame", "FID-vid (CLIP)": "similarity"}


def features(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function from clips uint8 (n, f, H, W, 3), of any size and length, to features, float64: (n, 64) by "motion"
    and "content", (n, f, 64) by "frame" and "similarity".

    Raises UserError for an unknown name or missing weights. The function raises UserError for anything but clips.
    """
    if name == "similarity":
        return Similarity.load().frame_features
    if name not in HEADS:
        raise UserError(f"unknown network {name!r}; known are {', '.join(DISTANCES.values())}")
    network = load(name)
    return lambda clips: extract(network, clips)
