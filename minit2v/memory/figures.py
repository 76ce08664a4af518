"""What sampling takes, counted beforehand for some models and clips, so that nobody waits for it.

    data/memory_figures.json     made by python scripts/memory_figures.py, read by `recorded`
    lab.MemoryPlanner            shows them

The rule that makes a peak of them is `memory.plan.moment`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from minit2v.devices import find_dtype
from minit2v.errors import UserError
from minit2v.files import data_dir, read_text
from minit2v.memory.plan import moment, no_numbers, pixels_of, working
from minit2v.presets import Preset
from minit2v.systems import build, find_preset, system_of
from minit2v.systems.settings import SamplingSettings, checked

FILE = "memory_figures.json"


@dataclass(frozen=True)
class Figures:
    """Bytes of one model, precision and clip; each network's at rest, and its tensors at the widest moment of its work."""

    model: str  # a preset
    dtype: str  # "float32" or "float16"; bfloat16 takes as much
    frames: int
    height: int  # pixels
    width: int
    weights: dict[str, int]  # network -> bytes
    text: int  # tensors of the text tower
    unet: dict[str, int]  # "batched", both halves of guidance at once; "in turn"
    decoder: dict[str, int]  # frames that are decoded at a time, as a text -> bytes

    @property
    def clip(self) -> str:
        """The size in words."""
        return f"{self.frames} frames of {self.width} × {self.height}"

    def tensors(self, batched: bool = True, chunk: int = 4) -> dict[str, int]:
        """Network -> bytes of its tensors; `chunk` frames are decoded at a time. Raises UserError for one not counted."""
        if str(chunk) not in self.decoder:
            raise UserError(f"chunk: expected one of {', '.join(self.decoder)}, found {chunk}")
        unet = self.unet["batched" if batched else "in turn"]
        return {"unet": unet, "text": self.text, "autoencoder": self.decoder[str(chunk)]}

    def peak(self, device: str = "cuda", batched: bool = True, offload: bool = False, chunk: int = 4) -> dict[str, int]:
        """Bytes at the widest moment by what they are for; see `moment` and `tensors`."""
        pixels = pixels_of(SamplingSettings(frames=self.frames, height=self.height, width=self.width))
        return moment(self.weights, self.tensors(batched, chunk), pixels, device, offload)


def counted(model: str | Preset, dtype: str = "float32", **size: int) -> Figures:
    """Count the figures of a preset; `size` is frames, height and width where they are not its own. Takes a minute for
    the released model."""
    preset = model if isinstance(model, Preset) else find_preset(model)
    settings = checked(["a clip"], SamplingSettings(**size), preset)
    kind, f, system = find_dtype(dtype, torch.device("cpu")), settings.frames, system_of(preset)
    with no_numbers(kind):
        networks = {name: network.eval() for name, network in build(preset).items()}
        weights = {name: sum(p.nbytes for p in network.parameters()) for name, network in networks.items()}
        calls = {batched: system.pipeline.calls(preset, settings, 1, batched) for batched in (True, False)}

        def at_work(name: str, batched: bool = True, chunk: int | None = None) -> int:
            method, shapes = calls[batched][name]
            shapes = shapes if chunk is None else ((chunk, *shapes[0][1:]),)
            return working(networks[name], getattr(networks[name], method), *shapes, dtype=kind)

        unet = {"batched": at_work("unet"), "in turn": at_work("unet", False)}
        decoder = {str(chunk): at_work("autoencoder", chunk=chunk) for chunk in sorted({1, min(4, f), f})}
        text = at_work("text")
    return Figures(preset.name, dtype, f, settings.height, settings.width, weights, text, unet, decoder)


def recorded() -> list[Figures]:
    """The figures that come with the library."""
    return [Figures(**row) for row in json.loads(read_text(data_dir() / FILE))]


def save(figures: list[Figures], path: str | Path) -> None:
    """Write figures as the file that `recorded` reads."""
    rows = ",\n".join(json.dumps(asdict(one)) for one in figures)
    Path(path).write_text(f"[\n{rows}\n]\n", encoding="utf-8")
