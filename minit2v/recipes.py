"""How the models of the presets are trained: the steps, in order, and what they do otherwise than the paper.

    mini    autoencoder, 2,000 steps ─► text, 2,332 steps ─► unet, 9,000 steps

``minit2v train all --preset mini`` runs a recipe; ``minit2v train unet --preset mini`` takes the settings of its step.
A preset without a recipe is trained with the settings of the parts themselves, which are the paper's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from minit2v.errors import UserError


@dataclass(frozen=True)
class Step:
    """One training of a recipe."""

    part: str  # row of the system's `parts`
    # of training steps, which `--budget` stretches; with `steps` about what they took: mini's parts on two cores, those of the
    # other systems on one core with AVX-512, in bfloat16
    minutes: float
    settings: Mapping[str, Any] = field(default_factory=dict)  # by name, as for --set; above the part's own
    after: str = ""  # name of an earlier step of this part: goes on from its weights, with its settings below these
    name: str = ""  # of the step and of its folder; the part's if empty
    steps: int = 0  # instead of minutes, which differ from machine to machine: exactly so many; 0: the minutes rule

    def __post_init__(self):
        object.__setattr__(self, "name", self.name or self.part)


LOOP = {"betas": (0.9, 0.99), "grad_clip": 1.0}  # few steps: a short memory, and no step may spoil what is learnt
AUTOENCODER = {
    **LOOP, "batch": 16, "lr": 2e-3, "weight_decay": 0.01, "ema": 0.995,
    "foreground": 8.0, "crop": 32, "share_images": 0.7, "bottleneck": 1e-4, "hinge": 0.1, "discriminator_width": 16,
}  # fmt: skip
TEXT = {
    **LOOP, "batch": 128, "lr": 1e-3, "weight_decay": 0.1, "ema": 0.99,
    "grid_positions": True, "word_deviation": 0.1,
}  # fmt: skip
UNET = {
    **LOOP, "batch": 8, "lr": 1e-3, "weight_decay": 0.01, "ema": 0.999,
    "image_stage": 0.03, "image_share": 0.2, "sparse_until": 0.5, "noisy_timestep_share": 0.3, "temporal_rate": 1.0,
    "muon_rate": 2.0, "uncertainty_weighted": True,
}  # fmt: skip
# latents in which colours lie apart: a linear layer must read them, and the decoder must bear noise (docs/training.md)
READABLE = {"readout": 0.9, "latent_noise": 0.1}
# half of the pictures show what no clip shows, most of them as clips in which nothing moves, each caption in four wordings
PICTURES = {"image_share": 0.3, "new_share": 0.5, "frozen_clips": 0.8, "clips": 8192, "wordings": 4}

JOINT = {**UNET, **PICTURES}
VIDEOS = {**UNET, "image_stage": 0.0, "image_share": 0.0, "images": 64, "clips": 8192, "wordings": 4}
IMAGE = {**JOINT, "image_stage": 1.0, "clips": 64}
PIXELS = {**LOOP, "batch": 8, "lr": 1e-3, "weight_decay": 0.01, "ema": 0.999, "muon_rate": 2.0}
TOKENS = {**LOOP, "lr": 1e-3, "weight_decay": 0.05, "ema": 0.998, "wordings": 4, "muon_rate": 2.0}

# what several systems begin with: `minit2v train all --from` takes them over from one that has them
LATENTS, WORDS = Step("autoencoder", 31, {**AUTOENCODER, **READABLE}, steps=2000), Step("text", 13, TEXT, steps=2332)
SHARED = [LATENTS, WORDS, Step("image", 25, IMAGE, steps=2500)]

RECIPES: dict[str, list[Step]] = {
    "mini": [LATENTS, WORDS, Step("unet", 180, JOINT, steps=9000)],
    "modelscope": [
        *SHARED,
        Step("unet", 60, {**JOINT, "image_stage": 0.0, "from_image": True}, steps=5000),
    ],
    "videoldm": [
        *SHARED,
        Step("unet", 60, {**VIDEOS, "from_image": True}, steps=7500),
        Step("decoder", 10, {**LOOP, "batch": 8, "lr": 5e-4, "foreground": 8.0}, steps=400),
    ],
    "magicvideo": [
        *SHARED,
        Step("unet", 50, {**JOINT, "image_stage": 0.0, "from_image": True, "temporal_rate": 10.0}, steps=6000),
        Step("decoder", 10, {**LOOP, "batch": 8, "lr": 5e-4, "foreground": 8.0, "adversarial": 0.0}, steps=400),
    ],
    "nuwa": [
        Step("autoencoder", 15, AUTOENCODER, steps=2000),
        WORDS,
        Step("transformer", 65, {**TOKENS, "batch": 8}, steps=4000),
    ],
    **{name: [
        Step("autoencoder", 15, AUTOENCODER, steps=2000),
        Step("image", 5, {**TOKENS, "batch": 8}, steps=2500),
        Step("keyframes", 40, {**TOKENS, "batch": 12}, steps=2500),
        Step("between", 20, {**TOKENS, "batch": 12}, steps=1500),
    ] for name in ("cogvideo", "cogvideo-zh")},
    "makeavideo": [
        Step("text", 7, {**TEXT, "words": "images", "images": 8192}, steps=600),
        Step("prior", 2, {**LOOP, "batch": 128, "lr": 1e-3, "weight_decay": 0.01, "ema": 0.999}, steps=4000),
        Step("image", 35, {**PIXELS, "clips": 0, "images": 16384}, steps=3000),
        Step("unet", 50, PIXELS, steps=6000),
        Step("between", 20, {**PIXELS, "batch": 4}, steps=2000),
        Step("upscale", 6, {**PIXELS, "batch": 4, "clips": 1024}, steps=1000),
    ],
    "nano": [Step("autoencoder", 3, AUTOENCODER), Step("text", 3, TEXT), Step("unet", 14, UNET)],
}


def recipe_of(preset: str) -> list[Step]:
    """The steps of a preset's recipe. Raises UserError if it has none."""
    if preset not in RECIPES:
        raise UserError(f"train all: expected a preset with a recipe, {', '.join(RECIPES)}, found {preset!r}; "
                        "train its parts one by one")  # fmt: skip
    return RECIPES[preset]


def settings_of(preset: str, name: str) -> dict[str, Any]:
    """Settings of the step of that name, with those of the steps that it comes after; empty if there is no such step.

    >>> settings_of("mini", "unet")["batch"], settings_of("mini", "unet")["lr"]
    (8, 0.001)
    """
    step = next((step for step in RECIPES.get(preset, []) if step.name == name), None)
    if step is None:
        return {}
    return {**(settings_of(preset, step.after) if step.after else {}), **step.settings}
