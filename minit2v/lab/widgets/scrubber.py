"""LatentScrubber: a sampling run under two sliders, denoising step and frame.

     step ──────●────────  5 of 12 · t 653 · ᾱ 0.12     left:  the clip that the network believes in (x0, decoded)
     frame ──●───────────  5 of 16                      right: latents, noise, attention … of that step and frame

It shows a `recording.Recording`, live or from a file, and what the run's system has: no view of noise or attention
without them. All of it is sent to the browser once. `linked` puts two runs side by side that move together, to compare
prompts or guidance.
"""

import numpy as np
import traitlets

from minit2v.errors import UserError
from minit2v.lab.widgets.base import LabWidget, files, pack
from minit2v.lab.widgets.pictures import enlarge, moving, sheet
from minit2v.pixels import evenly
from minit2v.recording.recorder import recorded
from minit2v.recording.recording import Recording
from minit2v.recording.sheets import atlas

VIEWS = {  # name -> the array of the recording that it needs
    "latent channels": "x", "latent as colour": "x", "clip x0": "x0", "noise": "eps", "decoded": "preview",
    "cross-attention": "cross", "temporal attention": "temporal",
}  # fmt: skip
COLUMNS, TILE = 6, 64  # the static picture: steps, pixels of a tile


class LatentScrubber(LabWidget):
    """Every step and frame of a sampling run: latents, noise, decoded clip and attention.

        latent channels      the numbers of every latent cell after the step, blue below 0, orange above
        latent as colour     the same through the linear map that best turns this run's latents into its pixels
        clip x0, noise       what the network saw in the latents before the step: a clip, and noise
        decoded              x0 through the decoder, all frames; click one
        cross-attention      where a word is looked up, over the decoded frame; click a word
        temporal attention   which frames look at which; click a row

    A system without x0 has its latents after the step in the place of x0, and each view that needs what it lacks is
    left out.

    Args:
        recording: a `recording.Recording`, from `lab.record(pipe, prompt)` or `Recording.load(path)`.
        name: see `LabWidget`.
        traits: where it begins: step, frame, view, word; `compact` leaves the left picture out.

    Synced: `step` 0..s-1, `frame` 0..f-1, `view` one of `.views`, `word` one of `.words` ("red (2)" is the second
    "red" of a prompt). Setting one to anything else raises UserError.
    """

    _esm = files("lab.js", "latents.js", "scrubber.js")
    _css = files("lab.css", "panels.css")
    step = traitlets.Int(0).tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    view = traitlets.Unicode().tag(sync=True)
    word = traitlets.Unicode().tag(sync=True)
    compact = traitlets.Bool(False).tag(sync=True)
    info = traitlets.Dict().tag(sync=True)
    numbers = traitlets.Bytes().tag(sync=True)
    numbers_layout = traitlets.Dict().tag(sync=True)
    pictures = traitlets.Bytes().tag(sync=True)
    pictures_layout = traitlets.Dict().tag(sync=True)

    def __init__(self, recording: Recording, name: str | None = None, **traits):
        if not isinstance(recording, Recording):
            raise UserError(f"LatentScrubber: expected a Recording, found {recording!r:.80}; "
                            "Recording.load reads a file")  # fmt: skip
        self.recording, self.words = recording, numbered(recording.words)
        self.shown = "x" if recording.x0 is None else "x0"  # what the preview shows, decoded
        self.projection = colour_projection(recording.latents(self.shown), recording.preview)
        self.views = [view for view, needed in VIEWS.items() if getattr(recording, needed) is not None]
        names = (*recording.latent_names, *recording.attention_maps)
        numbers, numbers_layout = pack(**{key: getattr(recording, key) for key in names})
        pictures, pictures_layout = atlas(recording.preview.reshape(-1, *recording.preview.shape[2:]))
        traits = {"view": self.views[0], "word": self.words[0] if self.words else ""} | traits
        super().__init__(name, info=self._info(), numbers=numbers, numbers_layout=numbers_layout,
                         pictures=pictures, pictures_layout=pictures_layout, **traits)

    def _info(self):
        run = self.recording
        return {
            "prompt": run.prompt, "model": run.model, "settings": run.settings, "fps": float(run.fps),
            "steps": run.steps.tolist(), "frames": run.frames.tolist(), "ofSteps": len(run.timesteps),
            "ofFrames": run.settings.get("frames", len(run.frames)), "t": run.t.tolist(),
            "alphaBar": None if run.alpha_bar is None else run.alpha_bar.tolist(),
            "ranges": {key: ends.tolist() for key, ends in run.ranges.items()}, "shown": self.shown,
            "views": self.views, "words": self.words, "projection": self.projection.round(4).tolist(),
        }  # fmt: skip

    @traitlets.validate("step", "frame")
    def _within(self, proposal):
        count = self.recording.preview.shape[proposal.trait.name == "frame"]
        if not 0 <= proposal.value < count:
            raise UserError(f"{proposal.trait.name}: expected 0 to {count - 1}, found {proposal.value}")
        return proposal.value

    @traitlets.validate("view", "word")
    def _known(self, proposal):
        known = self.views if proposal.trait.name == "view" else self.words or [""]
        if proposal.value not in known:
            raise UserError(f"{proposal.trait.name}: expected one of {', '.join(known)}, found {proposal.value!r}")
        return proposal.value

    def describe(self):
        steps, frames = self.recording.preview.shape[:2]
        return f"{self.recording.prompt!r}, {steps} steps, {frames} frames"

    def alt(self):
        return (f"The run for “{self.recording.prompt}”, from noise on the left to the clip on the right: "
                "latents as colours above, the decoded clip below.")

    def picture(self):
        return moving(len(self.recording.frames), self.moment)

    def moment(self, frame: int) -> np.ndarray:
        """The static picture at one frame."""
        run, steps = self.recording, evenly(len(self.recording.preview), COLUMNS)
        colours = np.einsum("schw,cd->shwd", run.latents("x")[steps, frame], self.projection[:-1]) + self.projection[-1]
        rows = colours.round().clip(0, 255).astype(np.uint8), run.preview[steps, frame]
        return sheet([enlarge(tiles, TILE) for tiles in rows], [f"t {run.t[i]}" for i in steps], ["x", self.shown])


def record(pipe, prompt: str, **settings) -> Recording:
    """A clip of a prompt, sampled by a `TextToVideo` step by step, to scrub; see `recording.recorder.recorded`."""
    return recorded(pipe, prompt, **settings)


def colour_projection(latents, pixels):
    """The affine map from latents to colours that is nearest to the decoder, by least squares: float (c + 1, 3).

    Args:
        latents: float (s, f, c, h, w); pixels: uint8 (s, f, H, W, 3), the same decoded.
    The last row is the constant, in 0..255. A picture's brightness and hue are nearly a linear function of its
    latents, as https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204 found.
    """
    from PIL import Image

    h, w = latents.shape[-2:]
    small = [Image.fromarray(frame).resize((w, h), Image.Resampling.BOX) for clip in pixels for frame in clip]
    columns = np.moveaxis(latents, 2, -1).reshape(-1, latents.shape[2])  # (s f c h w) -> ((s f h w) c)
    ones = np.ones((len(columns), 1))
    return np.linalg.lstsq(np.hstack([columns, ones]), np.stack(small).reshape(-1, 3), rcond=None)[0]


def numbered(words):
    """The words, each under a name of its own: the second "red" is "red (2)".

    >>> numbered(["red", "circle", "red"])
    ['red', 'circle', 'red (2)']
    """
    words = [str(word) for word in words]
    seen = [words[:i].count(word) + 1 for i, word in enumerate(words)]
    return [word if n == 1 else f"{word} ({n})" for word, n in zip(words, seen)]
