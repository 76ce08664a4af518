"""The comparison of notebook 10: five guiders with several scales and over 50 seeds, measured once and kept.

    ways_to_guide(pipe, …) ── scripts/record_guiders.py ──► data/guiders.npz ── GuiderGrid.load() ──► picture, GuidanceLab

The file is a numpy archive without pickles; its clips are one WebP (`recording.sheets`), which loses a little.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from minit2v.datasets.moving_things import parse
from minit2v.diffusion.guiders import extrapolated, rescaled, within
from minit2v.diffusion.samplers import SAMPLERS, Model, gaussian, guided
from minit2v.errors import UserError
from minit2v.evaluation import judge, motion
from minit2v.evaluation.estimates import Estimate, mean_estimate
from minit2v.files import atomic, data_dir
from minit2v.pixels import evenly
from minit2v.recording.archive import arrays_of
from minit2v.recording.sheets import atlas, cut
from minit2v.systems.modelscope import ModelScopeT2V
from minit2v.systems.settings import latent_shape
from minit2v.video import check_output

UNWANTED = {  # prompt -> what the negative prompt says; they differ in one thing
    "a large red circle moves left": "a large purple circle moves left",
    "a small blue ring moves up": "a small blue circle moves up",
    "a large yellow square moves right": "a large yellow square moves left",
    "a small green star moves down": "a large green star moves down",
}
PROMPTS = tuple(UNWANTED)
TOLD = ("shape", "colour", "size", "motion")  # what each of the prompts says
SCALES = (1.0, 1.5, 3.0, 12.0)
SEEDS = 52  # of each guider with each scale: 13 of each prompt
SHOWN = len(PROMPTS)  # clips of each that are kept: one of each prompt
STEPS = 6  # of DDIM
INTERVAL = (0.2, 0.97)  # shares of noise between which the interval guider guides
SHARE = 0.7  # of the rescaling; Lin et al. section 3.4 take as much
FRAMES = 8  # of a kept clip
QUALITY = 55  # of the kept clips, of 100
MOST_BYTES = 2**25  # of a file, unpacked


def weakened(unet: nn.Module, amount: float = 0.1, seed: int = 0) -> nn.Module:
    """A copy of a network that knows the same, less well: each weight matrix with noise, `amount` of its own spread.

    It stands in for an early snapshot of the training, of which none is shipped.
    """
    weak, generator = copy.deepcopy(unet), torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad():
        for weight in weak.parameters():
            if weight.ndim > 1:
                noise = torch.randn(weight.shape, generator=generator).to(weight)
                weight.add_(amount * weight.std() * noise)
    return weak


def ways_to_guide(pipe: ModelScopeT2V, prompts: list[str], unwanted: list[str], weak: nn.Module) -> dict[str, Callable]:
    """The five guiders of the model: name -> (scale -> `Model` for these prompts)."""
    words, nothing, other = (pipe.text.encode(texts).to(pipe.device) for texts in (prompts, [""], unwanted))
    better, weaker = guided(pipe.unet, words), guided(weak, words)
    empty, bad = guided(pipe.unet, nothing.expand_as(words)), guided(pipe.unet, other)
    return {
        "classifier-free": partial(extrapolated, better, empty),
        "negative prompt": partial(extrapolated, better, bad),
        "interval": lambda scale: within(extrapolated(better, empty, scale), better, pipe.diffusion.alpha_bar, *INTERVAL),
        "autoguidance": partial(extrapolated, better, weaker),
        "rescaled": partial(rescaled, better, empty, share=SHARE),
    }


@torch.inference_mode()
def sampled(pipe: ModelScopeT2V, model: Model, seeds: list[int], steps: int = STEPS) -> tuple[np.ndarray, np.ndarray]:
    """Clips uint8 (b, f, H, W, 3) of a model, one for each seed, and the standard deviation of their latents (b,)."""
    shape = latent_shape(len(seeds), pipe.preset, pipe.preset)  # the preset's own frames, height and width
    start = gaussian(shape, [torch.Generator("cpu").manual_seed(seed) for seed in seeds]).to(pipe.device)
    *_, last = SAMPLERS["ddim"](model, start, pipe.diffusion, steps)
    return pipe.decode(last.x), last.x.flatten(1).std(1).cpu().numpy()


@dataclass(eq=False)
class GuiderGrid:
    """What was measured: g guiders, s scales, n clips each, of which k are kept. Clip i has seed i.

    Raises UserError for arrays that do not fit together.
    """

    weights: str  # fingerprint of the model
    guiders: list[str]
    scales: list[float]  # the first is 1, where all guiders are the model alone
    prompts: list[str]  # of the n clips
    right: np.ndarray  # (g, s, n, 4) bool: does the judge read what the prompt says, in the order of TOLD
    diversity: np.ndarray  # (g, s): mean distance of two clips of one prompt, in the features of `motion.diversity`
    spread: np.ndarray  # (g, s, n): standard deviation of the latents
    flicker: np.ndarray  # (g, s, n): grey levels, see `evaluation.motion`
    clips: np.ndarray  # (g, s, k, f, H, W, 3) uint8

    def __post_init__(self):
        g, s, n = len(self.guiders), len(self.scales), len(self.prompts)
        wanted = {"right": (g, s, n, len(TOLD)), "diversity": (g, s), "spread": (g, s, n), "flicker": (g, s, n)}
        for name, shape in wanted.items():
            if (found := getattr(self, name).shape) != shape:
                raise UserError(f"grid: expected {name} of shape {shape}, found {found}")
        if self.clips.dtype != np.uint8 or self.clips.ndim != 7 or self.clips.shape[:2] != (g, s):
            raise UserError(f"grid: expected clips uint8 ({g}, {s}, k, f, H, W, 3), found {self.clips.shape}")

    @property
    def fidelity(self) -> list[list[Estimate]]:
        """How much of what the prompt says the judge reads in a clip, in %, for each guider (g) and scale (s)."""
        return [[mean_estimate(100 * of_scale.mean(1)) for of_scale in of_guider] for of_guider in self.right]

    def save(self, path: str | Path) -> Path:
        """Write an .npz file and return its path. Raises UserError for a place that cannot be written."""
        path = check_output(path, (".npz",))
        tiles, layout = atlas(self.clips.reshape(-1, *self.clips.shape[4:]), QUALITY)  # ((g s k f) H W 3)
        names = ("weights", "guiders", "scales", "prompts")
        texts = {name: getattr(self, name) for name in names} | {"layout": layout, "shape": self.clips.shape[:4]}
        arrays = {name: getattr(self, name).astype(np.float32) for name in ("diversity", "spread", "flicker")}
        with atomic(path) as unfinished:
            np.savez_compressed(unfinished, texts=np.array(json.dumps(texts)), tiles=np.frombuffer(tiles, np.uint8),
                                right=self.right, **arrays)  # fmt: skip
        return path

    @classmethod
    def load(cls, path: str | Path | None = None) -> "GuiderGrid":
        """The grid in an .npz file; by default the shipped one. Raises UserError for a missing or damaged file."""
        path = Path(path or data_dir() / "guiders.npz")
        try:
            arrays = arrays_of(path, MOST_BYTES)
            texts = json.loads(str(arrays.pop("texts")))
            tiles = cut(arrays.pop("tiles").tobytes(), texts.pop("layout"))
            return cls(clips=tiles.reshape(*texts.pop("shape"), *tiles.shape[1:]), **texts, **arrays)
        except Exception as error:  # a damaged archive fails in a dozen ways
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"expected a grid of guiders, found {path} missing or damaged: {reason:.200}; "
                            "python scripts/record_guiders.py makes it") from error  # fmt: skip


def measured(clips: np.ndarray, prompts: list[str], features: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """The figures of clips uint8 (n, f, H, W, 3), which repeat the prompts in the same order: "right" (n, 4) bool,
    "flicker" (n,), "diversity" (), and "clips", the frames that are kept of the first of each prompt."""
    verdicts = [judge.agrees(judge.read(clip), parse(prompt)) for clip, prompt in zip(clips, prompts)]
    found, different = features(clips), len(set(prompts))
    of_prompt = found.reshape(-1, different, found.shape[-1]).swapaxes(0, 1)  # (n d) -> (prompts, seeds, d)
    return {
        "right": np.array([[verdict[name] for name in TOLD] for verdict in verdicts]),
        "flicker": motion.measure(clips)["flicker"],
        "diversity": motion.diversity(of_prompt).mean(),
        "clips": clips[:SHOWN][:, evenly(clips.shape[1], FRAMES)],
    }
