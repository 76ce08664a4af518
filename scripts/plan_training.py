"""The released training on paper: python scripts/plan_training.py

What 267,000 steps of 3,200 clips and 1,400 pictures take: operations, days, memory of a card, data. Everything is counted
on tensors without numbers, in a minute; docs/planning.json keeps it, and scripts/write_docs.py writes docs/planning.md
from it. The rates of cards are their makers' figures; nothing here was timed.

Sources: sizes of the training, ModelScopeT2V, arXiv 2308.06571, section 4.1, as far as they are known (docs/planning.md).
"""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from minit2v.evaluation.table import markdown_table  # noqa: E402
from minit2v.files import write_json  # noqa: E402
from minit2v.memory.plan import Live, gigabytes  # noqa: E402
from minit2v.networks.lora import attach, fresh  # noqa: E402
from minit2v.networks.unet import UNet  # noqa: E402
from minit2v.presets import get  # noqa: E402

STEPS, CLIPS, PICTURES = 267_000, 3_200, 1_400
CARDS = {"A100, 80 GB": (312e12, 80e9), "H100, 80 GB": (989e12, 80e9), "H200, 141 GB": (989e12, 141e9)}  # bfloat16, dense
UTILIZATION = 0.35  # of that rate; a guess, large trainings report 0.3 to 0.5
COUNTS = (8, 64, 256)  # cards
RANK = 8  # of an adapter
BYTES = 4 + 4 + 8 + 4  # of a parameter: float32 weight and gradient, AdamW's two means, the average
CAST = 2  # of a parameter: its bfloat16 copy, which a step computes with
MARGIN = 0.9  # share of a card's memory that is used


def in_short(planned: dict) -> str:
    """What the training takes, whatever it runs on."""
    rows = [
        ["parameters of the UNet", f"{planned['parameters']:,}"],
        ["a clip, forward and backward", f"{planned['clip']['operations'] / 1e12:.1f} TFLOP"],
        ["a picture", f"{planned['picture']['operations'] / 1e12:.2f} TFLOP"],
        ["a step", f"{planned['operations a step'] / 1e15:.0f} PFLOP"],
        ["all steps", f"{planned['operations']:.2g} FLOP"],
        ["kept for the backward pass, a clip", gigabytes(planned["clip"]["activations"])],
        ["clips seen", f"{planned['clips'] / 1e6:.0f} million"],
        ["pictures seen", f"{planned['pictures'] / 1e6:.0f} million"],
        ["frames that a step reads, as pixels", gigabytes(planned["pixels a step"])],
        ["latents of a clip, float16", f"{planned['latents of a clip'] / 1e3:.0f} kB"],
        ["of ten million clips", f"{planned['latents of a clip'] * 1e7 / 1e12:.1f} TB"],
        [f"parameters of an adapter of rank {planned['adapter']['rank']}", f"{planned['adapter']['parameters']:,}"],
        ["memory of its training, with one clip", gigabytes(planned["adapter"]["memory"])],
    ]
    return markdown_table(["what", "figure"], rows)


def of_cards(planned: dict) -> str:
    """Days and memory by kind and number of cards."""
    rows = [[row["card"], f"{row['cards']}", f"{row['seconds a step']:.1f}", f"{row['days']:,.0f}",
             gigabytes(row["whole"]), f"{row['clips at once, whole']}", gigabytes(row["pieces"]),
             f"{row['clips at once, pieces']}", f"{row['accumulate']}"] for row in planned["cards"]]  # fmt: skip
    return markdown_table(["card", "cards", "s a step", "days", "whole copies", "clips", "in pieces", "clips",
                           "parts of a step"], rows)  # fmt: skip


def main() -> None:
    preset = get("modelscope-1.7b")
    planned = plan(preset)
    write_json(ROOT / "docs" / "planning.json", planned)
    print(json.dumps(planned, indent=1))


def plan(preset) -> dict:
    """All figures of the page; bytes, operations, seconds."""
    parameters = parameters_of(preset)
    clip, picture = step_of(preset, preset.frames), step_of(preset, 1)
    operations = CLIPS * clip["operations"] + PICTURES * picture["operations"]
    latents = preset.frames * preset.unet.in_channels * (preset.height // 8) * (preset.width // 8)
    return {
        "parameters": parameters,
        "clip": clip,
        "picture": picture,
        "operations a step": operations,
        "operations": STEPS * operations,
        "clips": STEPS * CLIPS,
        "pictures": STEPS * PICTURES,
        "pixels a step": CLIPS * preset.frames * preset.height * preset.width * 3,
        "latents of a clip": 2 * latents,
        "adapter": adapter_of(preset),
        "cards": [row(name, count, parameters, clip, operations) for name in CARDS for count in COUNTS],
    }


def row(name: str, count: int, parameters: int, clip: dict, operations: int) -> dict:
    """One number of cards of one kind: days, memory before any clip, and clips that a card computes at once."""
    rate, memory = CARDS[name]
    seconds = operations / (rate * UTILIZATION * count)
    whole, pieces = (BYTES + CAST) * parameters, BYTES * parameters / count + CAST * parameters
    fit = lambda fixed: max(0, int((MARGIN * memory - fixed) // clip["activations"]))
    return {
        "card": name, "cards": count, "seconds a step": seconds, "days": STEPS * seconds / 86_400,
        "whole": whole, "pieces": pieces, "clips at once, whole": fit(whole), "clips at once, pieces": fit(pieces),
        "accumulate": -(-CLIPS // (count * fit(pieces))) if fit(pieces) else None,
    }  # fmt: skip


def parameters_of(preset) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(preset.unet).parameters())


def adapter_of(preset) -> dict:
    """Parameters of an adapter of rank RANK, and bytes that training it takes: the frozen weights in float32, the adapter
    with gradients and means, and what a clip keeps for the backward pass, changed weights included."""
    with torch.device("meta"):
        parameters = sum(p.numel() for p in fresh(UNet(preset.unet), RANK).parameters())
    kept = kept_of(preset, preset.frames, RANK)
    return {"rank": RANK, "parameters": parameters, "activations": kept,
            "memory": 4 * parameters_of(preset) + BYTES * parameters + kept}  # fmt: skip


def step_of(preset, frames: int) -> dict:
    """Operations of a training step of one clip (forward and backward, a multiply-add counts as two), and bytes of what
    the forward pass keeps for the backward pass, in bfloat16."""
    with bfloat16_by_default(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        output(UNet(preset.unet), preset, frames).sum().backward()
    return {"operations": counter.get_total_flops(), "activations": kept_of(preset, frames)}


def kept_of(preset, frames: int, rank: int = 0) -> int:
    """Bytes of what the forward pass of one clip keeps for the backward pass, in bfloat16; with an adapter, if it has a
    rank, of which alone gradients are asked."""
    with bfloat16_by_default(), FakeTensorMode():  # here attention keeps what fused kernels keep
        unet = UNet(preset.unet)
        if rank:
            adapter = fresh(unet, rank)
            unet.requires_grad_(False)
            attach(unet, adapter)
        live = Live(unet)
        with live:
            kept = output(unet, preset, frames)
            activations = live.now
            del kept
    return activations


def output(unet: UNet, preset, frames: int) -> torch.Tensor:
    x = torch.zeros(1, preset.unet.in_channels, frames, preset.height // 8, preset.width // 8)
    return unet(x, torch.zeros(1, dtype=torch.long), torch.zeros(1, preset.text.context_length, preset.unet.context_dim))


@contextmanager
def bfloat16_by_default():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


if __name__ == "__main__":
    main()
