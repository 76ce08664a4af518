"""Training the UNet as the paper does: images first, then clips and images together.

    stage 1   image-text pairs, no temporal layers                        an image model
    stage 2   temporal layers join as the identity; clips,                a video model that has not
              at first as a few frames each, and batches of images        forgotten what only images show

The autoencoder and the text tower are frozen, so the latents and the features of every caption are computed once (see
`latents`). *Caption sensitivity* shows during training whether captions are used at all: the loss with a wrong caption
over the loss with the right one, less 1, at several noise levels; 0 % means that captions are ignored. A data set with
a `Probe` makes one word wrong and gives a figure for each attribute; for other data, another clip's caption is the
wrong one.

References: ModelScopeT2V, arXiv 2308.06571, section 4.1 (joint multi-frame training); classifier-free guidance, arXiv
2207.12598, algorithm 1 (caption dropout).
"""

import math
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call

from minit2v.checkpoints.folder import load_into
from minit2v.datasets.base import Batch, Dataset, Probe
from minit2v.devices import warn_of_slow_bfloat16
from minit2v.diffusion.process import Diffusion
from minit2v.errors import UserError
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.text import TextEncoder
from minit2v.networks.unet import ImageUNet, UNet
from minit2v.pixels import evenly
from minit2v.presets import Preset
from minit2v.ranges import Checked, Count, Share, Size, Weight
from minit2v.ranks import this_process
from minit2v.systems import system_of
from minit2v.systems.modelscope import NOISE_LEVELS, ModelScopeT2V
from minit2v.training.latents import cached
from minit2v.training.parts import Part, in_float16, trained
from minit2v.training.sharding import in_pieces
from minit2v.training.trainer import TrainConfig

LOG_ERROR_RATE = 10.0  # learning rate of `UNetTask.log_error` over that of the others: 40 numbers, soon known


@dataclass(frozen=True)
class UNetTraining(Checked):
    """Settings of the UNet's training, those of the released code where they are known; departures are off."""

    clips: Size = 6144  # clips read or drawn, encoded and kept, if there are as many
    images: Count = 16384  # images likewise
    image_stage: Share = 0.0  # share of the run before the temporal layers join; released 0, from an image model
    image_share: Share = 1 / 8  # share of the later batches that are images; released 1/8
    new_share: Share = 0.0  # departure: share of a batch's images that show, by their caption, what no clip shows
    wordings: Size = 1  # departure: captions kept for each item of a data set that can write more; one is drawn each time
    images_per_clip: Size = 8  # images in the place of one clip of a batch; released 8: 32 against 4
    from_image: bool = False  # begin as the image model of the part `image`, as the released one did
    frozen_image: bool = False  # train alone what pictures have not taught, as Video LDM does
    caption_dropout: Share = 0.1  # share of captions replaced by the empty one; released 0.1
    temporal_rate: Weight = 5.0  # learning rate of the temporal layers that AdamW steps over that of the others; released 5
    bfloat16: bool = True  # compute in bfloat16, keep parameters in float32; released float16 likewise
    frozen_clips: Share = 0.0  # departure: share of the later image batches shown as clips in which nothing moves
    sparse_until: Weight = 0.0  # departure: share of the run that sees clips as a few frames far apart; 2 is twice the run
    sparse_frames: int = 4  # how many at first, twice as many later; the fewer, the more clips make a batch
    noisy_timestep_share: Share = 0.0  # departure: share of timesteps from the noisiest fifth while clips are sparse
    uncertainty_weighted: bool = False  # departure: each noise level pulls as hard as any other, whatever its loss
    muon_rate: Weight = 0.0  # departure: rate of the blocks' weight matrices, which Muon steps; 0 leaves all to AdamW
    scene_prior_rate: Weight = 3.0  # rate of the departure `unet.scene_prior`


class UNetTask(nn.Module):
    """Denoising as a task for the trainer. `folder` holds the trained autoencoder and text tower, and keeps the latents.

    `pipe` is a model to go on from; by default a fresh UNet is trained. Raises UserError if a network is missing or of
    another preset.
    """

    may_be_sharded = True

    def __init__(self, preset: Preset, config: UNetTraining, data: Dataset, folder: Path,
                 pipe: ModelScopeT2V | None = None):  # fmt: skip
        super().__init__()
        halves = [preset.frames >> i for i in range(preset.frames.bit_length()) if preset.frames % 2**i == 0]
        if config.sparse_until and config.sparse_frames not in halves:
            listed = ", ".join(map(str, halves))
            raise UserError(f"sparse_frames: expected one of {listed}, found {config.sparse_frames}")
        warn_of_slow_bfloat16(config.bfloat16)
        self.preset, self.config, self.data, self.progress, self.sensitivity = preset, config, data, 0.0, {}
        # a pipeline is no nn.Module, so its other networks are neither trained nor saved with the task
        self.pipe = pipe or untrained(preset, self.built(preset), folder)
        self.unet = self.pipe.unet.to(memory_format=torch.channels_last)
        self.diffusion = Diffusion(preset.diffusion)
        with this_process().main_process_first():  # the others find what the first has computed
            cache = Path(folder) / "unet" / "cache.safetensors"
            self.cache = cached(cache, self.pipe, data, config.clips, config.images, config.wordings)
        contexts = self.cache["contexts"].float()
        if self.unet.text_embedding is not None and pipe is None:
            whiten_input(self.unet.text_embedding, self.unet.heard(contexts))
        for prior in self.unet.scene_priors() if pipe is None else []:
            whiten_input(prior.text, contexts.mean(dim=1))
        if config.from_image:
            begin_as(self.unet, trained(folder, "image", preset.name))
        if config.frozen_image:
            for name in taught_by_pictures(self.unet):
                self.unet.get_parameter(name).requires_grad_(False)
        # log of the root mean squared error, of images and of clips, at each of 20 noise levels; learnt with the rest
        self.log_error = nn.Parameter(torch.zeros(2, 20)) if config.uncertainty_weighted else None
        view = data.open("val", preset.frames, preset.height, preset.width)
        self.test = view.batch(range(min(16, len(view))))

    def built(self, preset: Preset) -> UNet:
        """The network that is trained, at random."""
        return system_of(preset).networks["unet"](preset.unet)

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        return {"unet": self.unet}

    def parameter_groups(self, lr: float) -> list[dict]:
        groups = grouped(self.unet, self.config, lr)
        if self.log_error is not None:
            groups.append({"params": [self.log_error], "lr": lr * LOG_ERROR_RATE, "orthogonal": False, "bfloat16": False})
        return groups

    def draw(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """n clips (more of fewer frames), or n times `images_per_clip` images: latents (b, c, f, h, w), the numbers
        of their frames (b, f), noise, t (b,), context (b, n, d).

        A frozen clip is an image throughout, of 2, 4, 8, … frames. Concepts that only images show would otherwise be
        known to the network where f is 1 and nowhere else; images as frozen videos: arXiv 2104.00650, section 3.4."""
        config, kind, spacing = self.config, "clips", self.spacing
        image_stage = self.progress < config.image_stage
        if image_stage or uniform(generator, 1).item() < config.image_share:
            kind, spacing = "images", self.preset.frames
            halvings = self.preset.frames.bit_length() - 1
            if halvings and not image_stage and uniform(generator, 1).item() < config.frozen_clips:
                spacing = 2 ** int(torch.randint(halvings, (1,), generator=generator, device="cpu"))
        if spacing == self.preset.frames:  # a single frame: a picture
            n *= config.images_per_clip
            positions = torch.zeros(n, 1, dtype=torch.long, device="cpu")
        else:
            n *= spacing
            start = torch.randint(spacing, (n, 1), generator=generator, device="cpu")
            positions = start + torch.arange(0, self.preset.frames, spacing, device="cpu")  # (b f)
        index = self.draw_items(generator, n, kind)
        frames = positions if kind == "clips" else torch.zeros_like(positions)
        latents = self.cache[f"{kind}.latents"][index[:, None], :, frames].float()  # (b f c h w)
        latents = rearrange(latents, "b f c h w -> b c f h w").contiguous()
        rows = self.cache[f"{kind}.captions"][index]  # (n wordings)
        if rows.shape[1] > 1:
            rows = rows.gather(1, torch.randint(rows.shape[1], (n, 1), generator=generator, device="cpu"))
        context = self.cache["contexts"][rows[:, 0]].float()
        dropped = uniform(generator, n) < self.config.caption_dropout  # eq (9.3) · Ho and Salimans algorithm 1
        context[dropped] = self.cache["contexts"][0].float()  # row 0 is the empty caption
        t = self.draw_timesteps(generator, n)
        return {
            "latents": latents,
            "noise": torch.randn(latents.shape, generator=generator, dtype=torch.float32, device="cpu"),
            "t": t,
            "context": context,
            "positions": positions,
        }

    def draw_items(self, generator: torch.Generator, n: int, kind: str) -> Tensor:
        """The numbers of n clips or images (n,); of the images, `new_share` are of things that no clip shows."""
        draw = lambda many: torch.randint(many, (n,), generator=generator, device="cpu")
        new = self.cache["images.new"]
        if kind == "clips" or not self.config.new_share or new.all() or not new.any():
            return draw(len(self.cache[f"{kind}.latents"]))
        (of_new,), (of_others,) = new.nonzero(as_tuple=True), (~new).nonzero(as_tuple=True)
        chosen = uniform(generator, n) < self.config.new_share
        return torch.where(chosen, of_new[draw(len(of_new))], of_others[draw(len(of_others))])

    @property
    def spacing(self) -> int:
        """Frames from one that is shown to the next: halved at equal parts of `sparse_until`, then 1."""
        if self.progress >= self.config.sparse_until:
            return 1
        widest = self.preset.frames // self.config.sparse_frames
        halvings = int(math.log2(widest) * self.progress / self.config.sparse_until)
        return widest // 2**halvings

    def draw_timesteps(self, generator: torch.Generator, n: int) -> Tensor:
        """Uniform over all timesteps; while clips are sparse, a share of `noisy_timestep_share` is from the noisiest
        fifth, where nothing but the caption says how things move. One from each n-th of this distribution: no batch is
        all noisy or all clean (Variational Diffusion Models, arXiv 2107.00630, appendix I.1)."""
        steps, share = self.preset.diffusion.timesteps, self.config.noisy_timestep_share if self.spacing > 1 else 0.0
        drawn = (torch.arange(n, device="cpu") + uniform(generator, n)) / n
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
        noisy = self.diffusion.add_noise(latents, noise, t)
        output = in_precision(self.unet, self.config.bfloat16, noisy, t, context, temporal=temporal, positions=positions)
        return self.diffusion.loss(output, latents, noise, t, per_clip=True)

    @torch.no_grad()
    def caption_sensitivity(self) -> dict[str, float]:
        """What a wrong caption costs: the loss with it over that with the right one, less 1, by what is wrong and by
        timestep; empty if no two validation captions differ."""
        positions = torch.arange(0, self.preset.frames, self.spacing, device="cpu").expand(len(self.test.frames), -1)
        latents = self.pipe.encode(self.test.frames[:, positions[0].numpy()])
        noise = torch.randn(latents.shape, generator=torch.Generator("cpu").manual_seed(0), dtype=torch.float32,
                            device="cpu").to(latents)  # fmt: skip
        positions, costs = positions.to(latents.device), {}
        right, wrong = captions_to_compare(self.data, self.test)
        right, wrong = self.pipe.text.encode(right), {name: self.pipe.text.encode(said) for name, said in wrong.items()}
        for t in NOISE_LEVELS:
            level = torch.full((len(latents),), int(t * self.preset.diffusion.timesteps), device=latents.device)
            base = self.losses(latents, noise, level, right, positions).mean()
            for name, context in wrong.items():
                cost = self.losses(latents, noise, level, context, positions).mean() / base - 1  # eq (9.4) · ours
                costs[f"{name} t={t}"] = cost.item()
        return costs

    def picture(self, rows: int = 6, columns: int = 8) -> np.ndarray | None:
        """Clips of six validation captions, uint8 (rows H, columns W, 3); also measures the caption sensitivity."""
        if self.progress < self.config.image_stage:
            return None
        for network in (self.pipe.text, self.pipe.autoencoder):  # the trainer has moved the UNet alone
            network.to(self.pipe.device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that captions are cut was said when they were encoded
            self.sensitivity = self.caption_sensitivity()
            clips = self.pipe(self.test.captions[:rows], steps=16, seed=0)
        show = evenly(self.preset.frames, columns)
        return rearrange(np.stack([clip.pixels[show] for clip in clips]), "r f H W c -> (r H) (f W) c")


def taught_by_pictures(unet: UNet) -> set[str]:
    """The names of the parameters that an image model has, and that its pictures have reached: of frame numbers, which a
    picture does not have, only an `ImageUNet` uses those of its scene prior, which are then as they were drawn."""
    with torch.device("meta"):
        found = {name for name, _ in ImageUNet(unet.config).named_parameters()}
    found &= {name for name, _ in unet.named_parameters()}
    return found if isinstance(unet, ImageUNet) else found - {"layout.frame.weight"}


def grouped(unet: UNet, config: Any, lr: float) -> list[dict]:
    """The parameters that are trained, one group for each learning rate and kind of step; embeddings, first and last
    layers are AdamW's. `config` has the rates of `UNetTraining`."""
    groups, identities = defaultdict(list), lambda parameters: {id(p) for p in parameters}
    blocks = nn.ModuleList([unet.first_temporal, unet.down, unet.middle, unet.up])
    layers = [module for module in blocks.modules() if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))]
    matrices = identities(layer.weight for layer in layers) if config.muon_rate else set()  # a table of frames is no matrix
    temporal = identities(unet.temporal_parameters())
    prior = identities(p for each in unet.scene_priors() for p in each.parameters())
    for p in (p for p in unet.parameters() if p.requires_grad):
        rate = config.scene_prior_rate if id(p) in prior else config.temporal_rate if id(p) in temporal else 1.0
        groups[config.muon_rate if id(p) in matrices else rate, id(p) in matrices].append(p)
    return [
        {"params": p, "lr": lr * rate, "orthogonal": matrix, "bfloat16": config.bfloat16}
        for (rate, matrix), p in groups.items()
    ]


def begin_as(unet: UNet, path: Path) -> None:
    """Give a UNet the weights of an image model, a file of an `ImageUNet` of the same sizes; its temporal layers stay.

    Raises UserError for a file of other sizes.
    """
    image = ImageUNet(unet.config)
    unet.load_state_dict(load_into(image, path).state_dict(), strict=False)


def untrained(preset: Preset, unet: UNet, folder: Path) -> ModelScopeT2V:
    """A model with this UNet, and the autoencoder and the text tower of a folder. Raises UserError as `UNetTask`."""
    autoencoder = load_into(VQGAN(preset.autoencoder), trained(folder, "autoencoder", preset.name))
    text = load_into(TextEncoder(preset.text), trained(folder, "text", preset.name))
    return ModelScopeT2V(preset, text.eval(), unet, autoencoder.eval())


def in_precision(unet: UNet, bfloat16: bool, x: Tensor, t: Tensor, context: Tensor, **options) -> Tensor:
    """The UNet's output, float32, computed with its parameters cast to bfloat16 or as they are."""
    if in_pieces(unet):  # gathered block by block, so each operation casts its own
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
            return unet(x, t, context, **options).float()
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    parameters = {name: p.to(dtype) for name, p in unet.named_parameters()}
    if "condition" in options:
        options["condition"] = options["condition"].to(dtype)
    return functional_call(unet, parameters, (x.to(dtype), t, context.to(dtype)), options).float()


def uniform(generator: torch.Generator, n: int) -> Tensor:
    """n numbers in 0..1 (n,), the same whatever torch's default dtype and device are."""
    return torch.rand(n, generator=generator, dtype=torch.float32, device="cpu")


def captions_to_compare(data: Dataset, test: Batch) -> tuple[list[str], dict[str, list[str]]]:
    """The right captions of some clips, and wrong ones by what is wrong with them."""
    if isinstance(data, Probe) and test.specs:
        # both in the plainest words: a paraphrase may cost more than a wrong word does
        right = [data.right(spec) for spec in test.specs]
        return right, {name: [data.wrong(spec, name) for spec in test.specs] for name in data.attributes}
    right = list(test.captions)
    if len(set(right)) < 2:
        return right, {}
    following = (next(other for other in right[i:] + right[:i] if other != said) for i, said in enumerate(right))
    return right, {"caption": list(following)}


@torch.no_grad()
def whiten_input(layer: nn.Linear, features: Tensor) -> None:
    """Start a layer as if its input were whitened, given examples of that input (n, d).

    CLIP's features vary more with the words of the looks than with the direction of motion, so a fresh layer would
    learn colours long before it learnt anything of motion (`scripts/ablate_scene_prior.py`).
    """
    covariance, mean = torch.cov(features.T), features.mean(0)
    variances, axes = torch.linalg.eigh(covariance)
    scales = (variances.clamp(min=0) + 3e-4 * variances.max()).rsqrt()  # the floor keeps noise from being loud too
    nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    layer.weight.copy_(layer.weight @ (axes * scales) @ axes.T)
    layer.bias.copy_(-layer.weight @ mean)


PART = Part(
    task=UNetTask,
    config=UNetTraining(),
    loop=TrainConfig(  # the released code's, of 8 ranks with 4 clips each
        batch=32, lr=5e-5, weight_decay=0.0, betas=(0.9, 0.999), grad_clip=math.inf, ema=0.9999
    ),
    fields=("unet", "diffusion"),
    needs=("autoencoder", "text"),
    finish=in_float16,
)
