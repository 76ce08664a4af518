"""Training the UNet as the paper does: images first, then clips and images together.

    stage 1   image-text pairs, no temporal layers                        an image model
    stage 2   temporal layers join as the identity; clips,                a video model that has not
              at first as a few frames each, and batches of images        forgotten what only images show

The autoencoder and the text tower are frozen, so the latents and the features of every caption are computed once (see
`latents`). *Caption sensitivity* says during training whether a word is used at all: the loss with one word of the
caption wrong, over the loss with the right one, at several noise levels. 0 % means that the word is ignored.

References: ModelScopeT2V, arXiv 2308.06571, section 4.1 (joint multi-frame training); classifier-free guidance, arXiv
2207.12598, algorithm 1 (caption dropout).
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call

from minit2v.checkpoints.folder import load_into
from minit2v.datasets.moving_things import MovingThings, caption
from minit2v.datasets.moving_things.wrong_words import with_wrong
from minit2v.diffusion.process import Diffusion
from minit2v.errors import UserError
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.text import TextEncoder
from minit2v.networks.unet import UNet
from minit2v.presets import Preset
from minit2v.systems.modelscope import ModelScopeT2V
from minit2v.training.latents import cached
from minit2v.training.ranks import this_process

LOG_ERROR_RATE = 10.0  # learning rate of `UNetTask.log_error` over that of the others: 40 numbers, soon known


@dataclass(frozen=True)
class UNetTraining:
    """Settings of the UNet's training, and the values of the released code where they are known."""

    clips: int = 6144  # clips rendered, encoded and kept
    images: int = 16384  # images likewise
    image_stage: float = 0.03  # share of the run before the temporal layers join
    image_share: float = 0.2  # share of the later batches that are images; released 1 in 8
    images_per_clip: int = 8  # images in the place of one clip of a batch; released 32 against 4
    stills: float = 0.0  # share of the later image batches that show them as clips in which nothing moves; departure
    sparse_until: float = 0.5  # share of the run that sees clips as a few frames far apart; departure, 0 is off
    sparse_frames: int = 4  # how many at first, twice as many later; the fewer, the more clips make a batch
    caption_dropout: float = 0.1  # share of captions replaced by the empty one; released 0.1
    temporal_rate: float = 1.0  # learning rate of the temporal layers over that of the others; released 5
    layout_rate: float = 3.0  # likewise of the departure `unet.layout`
    matrix_rate: float = 2.0  # rate of the blocks' weight matrices, which Muon steps; departure, 0 leaves all to AdamW
    balanced: bool = True  # each noise level pulls as hard as any other, whatever its loss; departure
    bfloat16: bool = True  # compute in bfloat16, keep parameters in float32 (1.6 times as fast on an AVX-512 CPU)
    high_noise: float = 0.3  # share of timesteps from the noisiest fifth while clips are sparse; departure, 0 is off


class UNetTask(nn.Module):
    """Denoising as a task for the trainer. `folder` holds the trained autoencoder and text tower.

    Raises UserError if one of them is missing or of another preset.
    """

    def __init__(self, preset: Preset, config: UNetTraining, folder: Path):
        super().__init__()
        halves = [preset.frames >> i for i in range(preset.frames.bit_length()) if preset.frames % 2**i == 0]
        if config.sparse_frames not in halves:
            known = ", ".join(map(str, halves))
            raise UserError(f"sparse_frames: expected one of {known}, found {config.sparse_frames}")
        self.preset, self.config, self.progress, self.sensitivity = preset, config, 0.0, {}
        self.unet = UNet(preset.unet).to(memory_format=torch.channels_last)
        self.diffusion = Diffusion(preset.diffusion)
        autoencoder = load_into(VQGAN(preset.autoencoder), trained(folder, "autoencoder", "vqgan"))
        text = load_into(TextEncoder(preset.text), trained(folder, "text", "clip"))
        # a pipeline is no nn.Module, so these two are neither trained nor saved with the task
        self.pipe = ModelScopeT2V(preset, text.eval(), self.unet, autoencoder.eval())
        with this_process().main_process_first():  # the others find what the first has computed
            self.cache = cached(Path(folder) / "unet" / "cache.safetensors", self.pipe, config.clips, config.images)
        for layer in caption_layers(self.unet):
            equally_loud(layer, self.cache["contexts"].float().mean(dim=1))
        # log of the root mean squared error, of images and of clips, at each of 20 noise levels; learnt with the rest
        self.log_error = nn.Parameter(torch.zeros(2, 20)) if config.balanced else None
        self.test = MovingThings("val", size=preset.height, frames=preset.frames).batch(range(16))

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        return {"unet": self.unet}

    def parameter_groups(self, lr: float) -> list[dict]:
        """One group for each learning rate and kind of step; embeddings, first and last layers are AdamW's."""
        unet, config, groups = self.unet, self.config, defaultdict(list)
        identities = lambda parameters: {id(p) for p in parameters}
        blocks = nn.ModuleList([unet.first_temporal, unet.down, unet.middle, unet.up])
        matrices = identities(p for p in blocks.parameters() if p.ndim > 1) if config.matrix_rate else set()
        temporal = identities(unet.temporal_parameters())
        layout = identities(unet.layout.parameters() if unet.layout else [])
        for p in unet.parameters():
            rate = config.temporal_rate if id(p) in temporal else config.layout_rate if id(p) in layout else 1.0
            groups[rate * (config.matrix_rate if id(p) in matrices else 1.0), id(p) in matrices].append(p)
        if self.log_error is not None:
            groups[LOG_ERROR_RATE, False].append(self.log_error)
        return [
            {"params": p, "lr": lr * rate, "orthogonal": matrix, "bfloat16": config.bfloat16}
            for (rate, matrix), p in groups.items()
        ]

    def draw(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """n clips (more of fewer frames), or n times `images_per_clip` images: latents (b, c, f, h, w), the numbers
        of their frames (b, f), noise, t (b,), context (b, n, d).

        A still clip is an image throughout, of 2, 4, 8, … frames. Concepts that only images show would otherwise be
        known to the network where f is 1 and nowhere else; images as frozen videos: arXiv 2104.00650, section 3.4."""
        config, kind, spacing = self.config, "clips", self.spacing
        image_stage = self.progress < config.image_stage
        if image_stage or torch.rand(1, generator=generator).item() < config.image_share:
            kind, spacing = "images", self.preset.frames
            if not image_stage and torch.rand(1, generator=generator).item() < config.stills:
                halvings = self.preset.frames.bit_length() - 1
                spacing = 2 ** int(torch.randint(halvings, (1,), generator=generator))
        if spacing == self.preset.frames:  # a single frame: a picture
            n *= config.images_per_clip
            positions = torch.zeros(n, 1, dtype=torch.long)
        else:
            n *= spacing
            start = torch.randint(spacing, (n, 1), generator=generator)
            positions = start + torch.arange(0, self.preset.frames, spacing)  # (b f)
        index = torch.randint(len(self.cache[f"{kind}.latents"]), (n,), generator=generator)
        frames = positions if kind == "clips" else torch.zeros_like(positions)
        latents = self.cache[f"{kind}.latents"][index[:, None], :, frames].float()  # (b f c h w)
        latents = rearrange(latents, "b f c h w -> b c f h w").contiguous()
        context = self.cache["contexts"][self.cache[f"{kind}.captions"][index]].float()
        dropped = torch.rand(n, generator=generator) < self.config.caption_dropout
        context[dropped] = self.cache["contexts"][0].float()  # row 0 is the empty caption
        t = self.draw_timesteps(generator, n)
        return {
            "latents": latents,
            "noise": torch.randn(latents.shape, generator=generator),
            "t": t,
            "context": context,
            "positions": positions,
        }

    @property
    def spacing(self) -> int:
        """From one frame that a clip is seen by to the next: halved in equal parts of `sparse_until`, at last 1."""
        widest = self.preset.frames // self.config.sparse_frames
        if self.progress >= self.config.sparse_until or widest == 1:
            return 1
        halvings = int(math.log2(widest) * self.progress / self.config.sparse_until)
        return widest // 2**halvings

    def draw_timesteps(self, generator: torch.Generator, n: int) -> Tensor:
        """Uniform over all timesteps; but of sparse clips a share of `high_noise` is from the noisiest fifth, where
        nothing but the caption tells how things move. One from each n-th of this distribution: no batch is all
        noisy or all clean (Variational Diffusion Models, arXiv 2107.00630, appendix I.1)."""
        steps, share = self.preset.diffusion.timesteps, self.config.high_noise if self.spacing > 1 else 0.0
        drawn = (torch.arange(n) + torch.rand(n, generator=generator)) / n
        below = 0.8 * (1 - share)  # the chance of the other four fifths
        drawn = torch.where(drawn < below, drawn / (1 - share), 0.8 + 0.2 * (drawn - below) / (1 - below))
        return (drawn * steps).long().clamp(max=steps - 1)  # float32 rounds 999.99999 up

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        temporal = self.progress >= self.config.image_stage
        losses = self.losses(**batch, temporal=temporal)
        kind = "image" if batch["latents"].shape[2] == 1 else "clip"
        metrics = {f"{kind} loss": losses.mean().item(), **self.sensitivity}
        if self.log_error is not None:
            levels = self.log_error.shape[1]
            level = batch["t"] * levels // self.preset.diffusion.timesteps
            typical = self.log_error[int(kind == "clip"), level].exp()
            losses = losses / typical + typical  # least where `typical` is the root of the level's mean loss
        return losses.mean(), metrics

    def losses(
        self,
        latents: Tensor,
        noise: Tensor,
        t: Tensor,
        context: Tensor,
        positions: Tensor | None = None,
        temporal: bool = True,
    ) -> Tensor:
        """The loss of each clip (b,)."""
        dtype = torch.bfloat16 if self.config.bfloat16 else torch.float32
        parameters = {name: p.to(dtype) for name, p in self.unet.named_parameters()}
        noisy = self.diffusion.add_noise(latents, noise, t)
        output = functional_call(self.unet, parameters, (noisy.to(dtype), t, context.to(dtype), temporal, positions))
        return self.diffusion.loss(output, latents, noise, t, per_clip=True)

    @torch.no_grad()
    def caption_sensitivity(self) -> dict[str, float]:
        """What a wrong word costs: the loss with it over that with the right one, less 1, by attribute and timestep."""
        frames, _, specs = self.test
        positions = torch.arange(0, self.preset.frames, self.spacing).expand(len(frames), -1)
        latents = self.pipe.encode(frames[:, positions[0].numpy()])
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents)
        positions = positions.to(latents.device)
        # both in the plainest words: a paraphrase may cost more than a wrong word does
        right, costs = self.pipe.text.encode([caption(spec) for spec in specs]), {}
        for t in (0.999, 0.8, 0.5):
            level = torch.full((len(latents),), int(t * self.preset.diffusion.timesteps), device=latents.device)
            base = self.losses(latents, noise, level, right, positions).mean()
            for name in ("shape", "colour", "size", "motion", "speed"):
                wrong = self.pipe.text.encode([caption(with_wrong(spec, name)) for spec in specs])
                costs[f"{name} t={t}"] = (self.losses(latents, noise, level, wrong, positions).mean() / base - 1).item()
        return costs

    def picture(self, rows: int = 6, columns: int = 8) -> np.ndarray | None:
        """Clips of six validation captions, uint8 (rows H, columns W, 3); also measures the caption sensitivity."""
        if self.progress < self.config.image_stage:
            return None
        for network in (self.pipe.text, self.pipe.autoencoder):  # the trainer has moved the UNet alone
            network.to(self.pipe.device)
        self.sensitivity = self.caption_sensitivity()
        clips = self.pipe(self.test[1][:rows], steps=16, seed=0)
        show = np.linspace(0, self.preset.frames - 1, columns).round().astype(int)
        return rearrange(np.stack([clip.pixels[show] for clip in clips]), "r f H W c -> (r H) (f W) c")


def trained(folder: Path, network: str, part: str) -> Path:
    """The file of a network that the UNet stands on."""
    path = Path(folder) / f"{network}.safetensors"
    if not path.is_file():
        raise UserError(
            f"expected a trained {network} in {folder}, found none; run minit2v train {part} --out {folder} first"
        )
    return path


def caption_layers(unet: UNet) -> list[nn.Linear]:
    """The layers that read the mean text token: those of the departures `text_in_embedding` and `layout`."""
    layers = [unet.text_embedding, unet.layout and unet.layout.text]
    return [layer for layer in layers if layer is not None]


@torch.no_grad()
def equally_loud(layer: nn.Linear, features: Tensor) -> None:
    """Let a layer start as if its input were whitened, given examples of that input (n, d).

    CLIP's features vary more with the words of the looks than with the direction of motion, so a fresh layer would
    hear colours for a long time before it heard anything of motion (`scripts/ablate_layout.py`).
    """
    covariance, mean = torch.cov(features.T), features.mean(0)
    variances, axes = torch.linalg.eigh(covariance)
    scales = (variances.clamp(min=0) + 3e-4 * variances.max()).rsqrt()  # the floor keeps noise from being loud too
    nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    layer.weight.copy_(layer.weight @ (axes * scales) @ axes.T)
    layer.bias.copy_(-layer.weight @ mean)
