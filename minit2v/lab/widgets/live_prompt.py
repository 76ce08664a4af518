"""LivePrompt: type, and the clip follows.

    prompt: [a large red ri|]      seed ──●──      steps ( 1 ) ( 2 ) ( 4 )
    ┌────────┐
    │ frame  │  plays        the browser writes `wish`, the kernel answers with a clip of its known words
    └────────┘               "a large red": the model does not know "ri"

Sampling needs the network, hence the kernel. The browser asks for one clip at a time: what is typed meanwhile is asked for
when the answer is there, so a slow machine falls behind by one clip and no more. Some prompts are sampled beforehand and
need no kernel.

References: one step, `minit2v.training.distillation`.
"""

import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import traitlets

from minit2v.errors import UserError
from minit2v.lab.widgets.base import LabWidget, files
from minit2v.lab.widgets.pictures import enlarge, sheet
from minit2v.pixels import evenly
from minit2v.recording.sheets import atlas
from minit2v.systems.pipeline import TextToVideo

STEPS = (1, 2, 4)
SEEDS = 32
LONGEST = 200  # letters of a prompt
MOST = 12  # prompts that are sampled beforehand
COLUMNS, TILE = 6, 64  # of the static picture: frames, pixels


def known_words(pipe: TextToVideo, prompt: str) -> tuple[str, list[str]]:
    """A prompt without the words that a model does not know, and these words; all are known to a whole vocabulary."""
    tokens = getattr(pipe.text, "tokens", None)
    known, strange = [], []
    for word in prompt.split():
        try:
            if tokens is not None:
                tokens([word])
            known.append(word)
        except UserError:
            strange.append(word)
    return " ".join(known), strange


class LivePrompt(LabWidget):
    """A field for a prompt, and the clip that a model makes of it while one types.

    Args:
        pipe: a model, best one of few steps.
        prompts: 1 to 12 texts that are sampled beforehand, with seed 0 and one step; the first is shown at first.
        name: see `LabWidget`.
        settings: of every clip, besides seed and steps: the fields of `SamplingSettings`.

    Synced: `wish`, {"prompt": text, "seed": 0..31, "steps": 1, 2 or 4}, which the kernel answers unless it was sampled
    beforehand. Raises UserError for no prompts, for words that the model does not know in them, and for another wish.
    """

    _esm = files("lab.js", "latents.js", "live_prompt.js")
    _css = files("lab.css", "panels.css")
    wish = traitlets.Dict().tag(sync=True)
    info = traitlets.Dict().tag(sync=True)
    recordings = traitlets.Bytes().tag(sync=True)
    answer = traitlets.Bytes().tag(sync=True)
    answered = traitlets.Dict().tag(sync=True)  # wish; said and strange, its words; with a clip tiles (of `answer`), seconds

    def __init__(self, pipe: TextToVideo, prompts: Sequence[str], name: str | None = None, **settings):
        if isinstance(prompts, str) or not 1 <= len(prompts) <= MOST:
            raise UserError(f"prompts: expected a list of 1 to {MOST} texts, found {prompts!r:.80}")
        self.pipe, self.prompts, self.settings = pipe, list(prompts), settings
        self.clips = np.stack([self.sampled(prompt, 0, STEPS[0]) for prompt in self.prompts])  # (n f H W 3)
        recordings, tiles = atlas(self.clips.reshape(-1, *self.clips.shape[2:]))
        info = {"prompts": self.prompts, "frames": self.clips.shape[1], "fps": float(pipe.preset.fps), "tiles": tiles,
                "seeds": SEEDS, "steps": list(STEPS), "model": pipe.preset.name, "longest": LONGEST}  # fmt: skip
        wish = {"prompt": self.prompts[0], "seed": 0, "steps": STEPS[0]}
        super().__init__(name, info=info, recordings=recordings, wish=wish)

    def sampled(self, prompt: str, seed: int, steps: int) -> np.ndarray:
        """The frames of a clip, uint8 (f, H, W, 3)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a long prompt is cut, as one sees
            return self.pipe(prompt, **(self.settings | {"seed": seed, "steps": steps})).pixels

    @traitlets.validate("wish")
    def _possible(self, proposal):
        wish = proposal.value
        prompt, seed, steps = (wish.get(name) for name in ("prompt", "seed", "steps"))
        if not isinstance(prompt, str) or len(prompt) > LONGEST:
            raise UserError(f"wish: expected a prompt of at most {LONGEST} letters, found {prompt!r:.80}")
        if type(seed) is not int or not 0 <= seed < SEEDS:
            raise UserError(f"wish: expected a seed from 0 to {SEEDS - 1}, found {seed!r}")
        if type(steps) is not int or steps not in STEPS:
            raise UserError(f"wish: expected {', '.join(map(str, STEPS))} steps, found {steps!r}")
        return {"prompt": prompt, "seed": seed, "steps": steps}

    @traitlets.observe("wish")
    def _answer(self, change):
        wish = change.new
        if self._recorded(wish):
            return
        prompt, strange = known_words(self.pipe, wish["prompt"])
        answered = {"wish": wish, "said": prompt, "strange": strange}
        start = time.perf_counter()
        try:
            clip = self.sampled(prompt, wish["seed"], wish["steps"])
        except UserError:  # nothing is left that says anything; the page keeps the clip that it shows
            self.answered = answered | {"said": ""}
            return
        answered["seconds"] = time.perf_counter() - start
        data, answered["tiles"] = atlas(clip)
        with getattr(self, "hold_sync", nullcontext)():  # both in one message
            self.answer, self.answered = data, answered

    def _recorded(self, wish: dict) -> bool:
        return wish["prompt"].strip() in self.prompts and wish["seed"] == 0 and wish["steps"] == STEPS[0]

    def describe(self):
        return f"{self.pipe.preset.name}; {len(self.prompts)} prompts beforehand, {self.clips.shape[1]} frames"

    def alt(self):
        return f"Frames of clips from left to right, a row for each prompt as it is typed: {'; '.join(self.prompts)}."

    def picture(self):
        chosen = evenly(self.clips.shape[1], COLUMNS)
        rows = [[enlarge(clip[i], TILE) for i in chosen] for clip in self.clips]
        return sheet(rows, [f"frame {i + 1}" for i in chosen], self.prompts)
