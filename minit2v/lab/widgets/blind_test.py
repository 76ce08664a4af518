"""BlindABTest: two clips of one prompt, side by side in random order and without names; you say which, then it counts.

    which one is real?  “a red circle moves left”        pair 3 of 24
    ┌────────┐  ┌────────┐
    │  left  │  │ right  │      ( ← the left one )  ( the right one → )
    └────────┘  └────────┘
    0 % ────────┼──●─────── 100 %      after some votes: share of wins, Wilson's interval, which was which

Everything is sent once, so it works without the kernel. Who votes knows nothing but the clips and the prompt; the order
comes from a seed, so that a room of people can see the same pairs.

References: Wilson's interval as in `minit2v.evaluation.estimates`; two-alternative forced choice: Fechner, Elemente der
Psychophysik (1860).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import traitlets

from minit2v.errors import UserError
from minit2v.evaluation.estimates import wilson
from minit2v.lab.pictures import line_of_text, row, stack
from minit2v.lab.widgets.base import LabWidget, files
from minit2v.lab.widgets.pictures import enlarge
from minit2v.pixels import evenly
from minit2v.recording.sheets import atlas
from minit2v.video import Clip

SIDES = ("left", "right")
SHOWN, FRAMES, TILE, GAP = 3, 4, 64, 24  # of the static picture: pairs, frames of a clip; pixels


class BlindABTest(LabWidget):
    """Pairs of clips without names: vote for one of each, then see who won, how surely, and which was which.

    Args:
        clips: {name: n clips}, of two contestants; clips are `Clip`s or uint8 (f, H, W, 3), or all uint8
            (n, f, H, W, 3). Clip i of both answers the prompt number i.
        captions: the n prompts.
        question: what to vote for.
        least: votes that are needed before the result may be seen.
        seed: of the order of the pairs and of the sides.
        fps: frames a second of the play button.
        name: see `LabWidget`.
        traits: where it begins: pair, frame, votes, revealed.

    Synced: `pair` 0..n-1, `frame` 0..f-1, `votes` a text for each pair ("" for none yet, "left", "right"), `revealed`.
    Raises UserError for other clips, and for a value outside of these.
    """

    _esm = files("lab.js", "drawing.js", "latents.js", "blind_test.js")
    _css = files("lab.css", "panels.css")
    pair = traitlets.Int(0).tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    votes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    revealed = traitlets.Bool(False).tag(sync=True)
    info = traitlets.Dict().tag(sync=True)
    tiles = traitlets.Bytes().tag(sync=True)
    tiles_layout = traitlets.Dict().tag(sync=True)

    def __init__(self, clips: Mapping, captions: Sequence[str], question: str = "Which one is better?", least: int = 10,
                 seed: int = 0, fps: float = 8, name: str | None = None, **traits):  # fmt: skip
        (self.first, one), (self.second, other) = _contestants(clips, captions)
        n = len(captions)
        if not 1 <= least <= n:
            raise UserError(f"least: expected 1 to {n} votes, found {least}")
        rng = np.random.default_rng(seed)
        self.order = rng.permutation(n)  # the prompt of each pair
        self.swapped = rng.permutation(np.arange(n) % 2).astype(bool)  # whether the second contestant stands on the left
        self.captions, self.question, self.least = [captions[i] for i in self.order], question, least
        both = np.stack([one, other], axis=1)[self.order]  # (n 2 f H W 3)
        both[self.swapped] = both[self.swapped, ::-1]
        self.clips = both  # of each pair: left, right
        tiles, tiles_layout = atlas(both.reshape(-1, *both.shape[3:]))
        info = {"names": [self.first, self.second], "question": question, "captions": self.captions, "least": least,
                "frames": both.shape[2], "fps": float(fps), "swapped": self.swapped.tolist()}  # fmt: skip
        super().__init__(name, info=info, tiles=tiles, tiles_layout=tiles_layout, **({"votes": [""] * n} | traits))

    @traitlets.validate("pair", "frame")
    def _within(self, proposal):
        name = proposal.trait.name
        last = (self.clips.shape[0] if name == "pair" else self.clips.shape[2]) - 1
        if not 0 <= proposal.value <= last:
            raise UserError(f"{name}: expected 0 to {last}, found {proposal.value}")
        return proposal.value

    @traitlets.validate("votes")
    def _known(self, proposal):
        if len(proposal.value) != len(self.clips) or not set(proposal.value) <= {"", *SIDES}:
            raise UserError(f"votes: expected '', 'left' or 'right' for each of {len(self.clips)} pairs, found "
                            f"{proposal.value!r:.100}")  # fmt: skip
        return proposal.value

    def result(self) -> dict[str, float]:
        """The votes for the first contestant: {"wins", "votes", "share", "low", "high"}, share and Wilson's 95 % interval
        in 0..1. Raises UserError before the first vote."""
        chosen = [(vote == "left") != bool(swapped) for vote, swapped in zip(self.votes, self.swapped) if vote]
        if not chosen:
            raise UserError("result: expected at least one vote, found none")
        wins, votes = sum(chosen), len(chosen)
        low, high = wilson(wins, votes)
        return {"wins": wins, "votes": votes, "share": wins / votes, "low": low, "high": high}

    def describe(self):
        return f"{len(self.clips)} pairs; {self.question}"

    def alt(self):
        told = "; ".join(f"“{caption}”" for caption in self.captions[:SHOWN])
        return (f"{self.question} The first {min(SHOWN, len(self.clips))} of {len(self.clips)} pairs, one below the other: "
                f"frames of the left clip and of the right clip, without names. Their prompts: {told}.")  # fmt: skip

    def picture(self):
        chosen = evenly(self.clips.shape[2], FRAMES)
        gap = np.full((1, GAP, 3), 255, np.uint8)
        parts = [line_of_text(self.question)]
        for number, (pair, caption) in enumerate(zip(self.clips[:SHOWN], self.captions), 1):
            left, right = ([enlarge(clip[i], TILE) for i in chosen] for clip in pair)
            parts += [line_of_text(f"pair {number} of {len(self.clips)}: {caption}"), row([*left, gap, *right])]
        return stack(parts)


def _contestants(clips: Mapping, captions: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """(name, uint8 (n, f, H, W, 3)) of both. Raises UserError for what cannot be compared."""
    found = [(str(name), [np.asarray(clip.pixels if isinstance(clip, Clip) else clip) for clip in several])
             for name, several in dict(clips).items()]  # fmt: skip
    shapes = {clip.shape for _, several in found for clip in several}
    shape = next(iter(shapes), ())
    fits = all(clip.dtype == np.uint8 for _, several in found for clip in several) and len(shapes) == 1
    counts = [len(several) for _, several in found]
    if not (len(found) == 2 and fits and len(shape) == 4 and shape[-1] == 3 and counts == 2 * [len(captions)]):
        raise UserError("BlindABTest: expected two contestants with a clip uint8 (f, H, W, 3) of one size for each caption, "
                        f"found {len(found)} with {counts} clips of {sorted(shapes)} and {len(captions)} captions")
    return [(name, np.stack(several)) for name, several in found]
