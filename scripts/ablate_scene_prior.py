"""How fast a network learns where a direction word puts things, by the features of the word that it reads.

    python scripts/ablate_scene_prior.py runs/mini

At t = 999 the best answer of a denoiser is the mean clip of its caption: an MLP of (caption, frame, row, column), the
`ScenePrior` of the UNet, learns that mean in a minute, where a UNet takes many. Prints after 150, 300 and 600 steps of
64 clips how much the loss on 256 other clips grows with the opposite direction in the caption. Needs the folder of a
finished run, for its text tower and the latents that its UNet was trained on.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from minit2v.checkpoints.folder import load_into, read_preset
from minit2v.checkpoints.reading import read
from minit2v.datasets.moving_things import MovingThings, caption
from minit2v.datasets.moving_things.wrong_words import OPPOSITE, with_wrong
from minit2v.networks.text import TextEncoder
from minit2v.networks.unet import ScenePrior
from minit2v.training.parts import trained
from minit2v.training.unet import whiten_input

HELD_BACK, BATCH, REPORTS = 256, 64, (150, 300, 600)


class MeanClip(nn.Module):
    """A ScenePrior and a linear layer that makes latents of its features: (b n d), (b f) -> (b f h w c)."""

    def __init__(self, context_dim: int, c: int, latent_channels: int, deep: bool):
        super().__init__()
        self.layout, self.head = ScenePrior(context_dim, c), nn.Linear(c, latent_channels)
        if not deep:
            self.layout.hidden = nn.Identity()

    def forward(self, context, positions, h, w):
        features = rearrange(self.layout(context, positions, h, w), "(b f) c h w -> b f h w c", b=len(context))
        return self.head(features)


def cost_of_opposite(model, latents, right, wrong, positions) -> tuple[float, float]:
    """(mean, standard error) in % of the loss with the right word."""
    with torch.no_grad():
        losses = [
            ((model(context, positions, *latents.shape[2:4]) - latents) ** 2).flatten(1).mean(1)
            for context in (right, wrong)
        ]
    difference, base = losses[1] - losses[0], losses[0].mean()
    return (100 * difference.mean() / base).item(), (100 * difference.std() / len(latents) ** 0.5 / base).item()


def data(folder: Path):
    """(latents (n f h w c), features of the captions (n k d), their specs, the text tower)."""
    preset = read_preset(folder)
    text = load_into(TextEncoder(preset.text), trained(folder, "text", preset.name)).eval()
    cache = dict(read(folder / "unet" / "cache.safetensors"))
    latents = rearrange(cache["clips.latents"].float(), "b c f h w -> b f h w c").contiguous()
    specs = [MovingThings("train", size=preset.height).text(i)[1] for i in range(len(latents))]
    return latents, cache["contexts"].float()[cache["clips.captions"][:, 0]], specs, text  # of each the first wording


def fit(model: MeanClip, latents, contexts, steps: int):
    """Train on all clips except those held back; yields the number of steps done."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(1, steps + 1):
        index = torch.randint(len(latents) - HELD_BACK, (BATCH,))
        positions = torch.randint(4, (1, 1)) + torch.arange(0, latents.shape[1], 4)
        predicted = model(contexts[index], positions, *latents.shape[2:4])
        loss = F.mse_loss(predicted, latents[index[:, None], positions])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield step


def main(run: str) -> None:
    folder = Path(run)
    latents, contexts, specs, text = data(folder)
    test = specs[-HELD_BACK:]
    said = [text.encode([caption(s) for s in specs]) for specs in (test, [with_wrong(s, "motion") for s in test])]
    words = sorted(OPPOSITE)
    number = lambda motions: torch.tensor([words.index(motion) for motion in motions])
    hot = lambda motions: F.one_hot(number(motions), contexts.shape[-1])[:, None].float()  # one "token" each
    motions = [spec.things[0].motion for spec in specs]
    only = hot(motions), [hot(motions[-HELD_BACK:]), hot([OPPOSITE[m] for m in motions[-HELD_BACK:]])]
    variants = {
        "as CLIP gives it": (contexts, said, False, True),
        "whitened": (contexts, said, True, True),
        "whitened, one hidden layer": (contexts, said, True, False),
        "direction only, one-hot": (*only, True, True),
    }
    shown = torch.arange(1, latents.shape[1], 4)[None]
    for name, (train, (right, wrong), whitened, deep) in variants.items():
        torch.manual_seed(0)
        width = read_preset(folder).unet.channels[0]
        model = MeanClip(contexts.shape[-1], width, latents.shape[-1], deep)
        if whitened:
            whiten_input(model.layout.text, train[:-HELD_BACK].mean(1))
        for step in fit(model, latents, train, REPORTS[-1]):
            if step in REPORTS:
                cost, error = cost_of_opposite(model, latents[-HELD_BACK:][:, shown[0]], right, wrong, shown)
                print(f"{name:<28} {step:>4} steps: opposite direction costs {cost:+5.1f} % ± {error:.1f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
