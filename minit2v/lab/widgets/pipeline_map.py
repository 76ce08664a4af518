"""PipelineMap: ModelScopeT2V in one picture; a box shows its shapes, parameters, file, and the notebook that builds it.

    prompt ─> text encoder ─>  UNet   ─> …           the text enters from the left, the noise from below;
                              ↕    (every step)      UNet and sampler take turns;
                noise ─>  sampler ─> autoencoder ─> clip      the autoencoder works once, at the end

References: ModelScopeT2V, arXiv 2308.06571, figure 2.
"""

from types import SimpleNamespace

import torch

from minit2v.diffusion import samplers
from minit2v.errors import UserError
from minit2v.lab.widgets.boxes import Box, BoxMap, count, parts_of, shape_text
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.text import TextEncoder, Tokenizer
from minit2v.networks.unet import UNet
from minit2v.presets import ModelScopePreset, Preset
from minit2v.systems import build
from minit2v.video import Clip

NOTEBOOKS = {
    "prompt": "04 Words into vectors", "text encoder": "04 Words into vectors", "noise": "05 Destroying a video",
    "UNet": "06 Un-destroying it (from the outside)", "sampler": "06 Un-destroying it",
    "autoencoder": "02 Squeezing frames, 03 Training a tiny VQGAN", "clip": "01 Video is a tensor",
}  # fmt: skip


class PipelineMap(BoxMap):
    """A text encoder, a UNet and an autoencoder as boxes: pick one for its shapes, parameters, source and notebook.

    Args:
        pipe: a `TextToVideo` of the system modelscope, or its preset: then the networks are built without memory.

    Synced: `selected`, the number of a box. UserError for something else, such as a model of another system.
    """

    def __init__(self, pipe, name: str | None = None):
        self.preset = pipe if isinstance(pipe, Preset) else getattr(pipe, "preset", None)
        if getattr(self.preset, "system", None) != ModelScopePreset.system:
            found = f"system {self.preset.system}" if isinstance(self.preset, Preset) else type(pipe).__name__
            raise UserError(f"PipelineMap: expected a model or a preset of the system {ModelScopePreset.system}, "
                            f"found {found}; it draws no other")  # fmt: skip
        if pipe is self.preset:
            with torch.device("meta"):
                pipe = SimpleNamespace(**build(pipe))
        self.parameters = sum(count([part])[0] for part in (pipe.text, pipe.unet, pipe.autoencoder))
        boxes = self._boxes(pipe)
        title = f"{self.preset.name}: from a prompt to a clip, {self.parameters:,} parameters"
        super().__init__(list(boxes.values()), self._lines(boxes), title, list(boxes).index("UNet"), name=name)

    def describe(self):
        return f"{self.preset.name}, {self.parameters:,} parameters"

    def _boxes(self, pipe) -> dict[str, Box]:
        preset = self.preset
        n, d, f = preset.text.context_length, preset.text.width, preset.frames
        c, factor = preset.autoencoder.latent_channels, preset.autoencoder.factor
        latent = c, f, preset.height // factor, preset.width // factor
        latents, text = f"1 × {shape_text(latent)} (b c f h w)", f"1 × {n} × {d} (b n d)"
        frames = f"{f} × {preset.height} × {preset.width} × 3 (f H W 3)"
        once, each = "once a clip", f"{preset.steps} times a clip"
        guided = f"{each}, with and without the prompt (guidance {preset.guidance:g})"
        rows = {  # title: place, note, module, source, facts
            "prompt": ((8, 52, 122, 48), f"{n} ids", None, Tokenizer,
                       [("input", "a text"), ("output", f"1 × {n} (b n), whole numbers"), ("works", once)]),
            "text encoder": ((164, 44, 172, 64), f"{n} × {d}", pipe.text, TextEncoder,
                             [("input", f"1 × {n} (b n)"), ("output", text), ("works", once)]),
            "UNet": ((380, 8, 236, 136), "finds the noise", pipe.unet, UNet,
                     [("input", latents), ("and", text + ", and the timestep"), ("output", latents),
                      ("works", guided)]),
            "noise": ((380, 284, 236, 44), shape_text(latent), None, samplers.gaussian,
                      [("input", "a seed"), ("output", latents), ("works", once)]),
            "sampler": ((380, 196, 236, 48), f"{preset.steps} steps", None, samplers.ddim,
                        [("input", latents), ("output", f"{latents}, a little less noisy"), ("works", each)]),
            "autoencoder": ((660, 184, 172, 72), f"{factor}× per side", pipe.autoencoder, VQGAN,
                            [("input", f"{f} × {c} × {latent[2]} × {latent[3]} (b f) c h w"),
                             ("output", f"{f} × 3 × {preset.height} × {preset.width} (b f) 3 H W"),
                             ("works", f"{once}, its decoder only")]),
            "clip": ((700, 284, 132, 44), f"{f} frames", None, Clip,
                     [("output", f"{frames}, 0 to 255"), ("plays", f"{preset.fps} frames a second")]),
        }  # fmt: skip
        along_time, boxes = set(pipe.unet.temporal_layers()), {}
        for title, (place, note, module, source, facts) in rows.items():
            total, temporal = count([module], along_time)
            parts = parts_of(module, along_time) if module is not None else []
            facts = [*facts, ("notebook", NOTEBOOKS[title])]
            named = {"text encoder": "pipe.text", "UNet": "pipe.unet", "autoencoder": "pipe.autoencoder"}
            box = Box(named.get(title, title), title, *place, note, facts, total, temporal, parts)
            boxes[title] = box.with_source(source)
        return boxes

    def _lines(self, boxes: dict[str, Box]) -> list[dict]:
        right = {title: [box.x + box.width, box.y + box.height / 2] for title, box in boxes.items()}
        left = {title: [box.x, box.y + box.height / 2] for title, box in boxes.items()}
        unet, sampler, noise = boxes["UNet"], boxes["sampler"], boxes["noise"]
        autoencoder, clip = boxes["autoencoder"], boxes["clip"]
        x, low = unet.x + unet.width / 2, unet.y + unet.height
        fall = clip.x + clip.width / 2
        paths = [
            [right["prompt"], left["text encoder"]], [right["text encoder"], left["UNet"]],
            [[x - 50, sampler.y], [x - 50, low]], [[x + 50, low], [x + 50, sampler.y]],
            [[x, noise.y], [x, sampler.y + sampler.height]], [right["sampler"], left["autoencoder"]],
            [[fall, autoencoder.y + autoencoder.height], [fall, clip.y]],
        ]  # fmt: skip
        return [{"points": path, "skip": False} for path in paths]
