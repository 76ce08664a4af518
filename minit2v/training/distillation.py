"""One step: a network learns to jump along the path that many steps would take.

    noise  x_T ─────.                          the path (ODE) of a trained model, the *teacher*, from noise to a clip
                     ╲__ x_t ──.
                        ╲       ╲___ x_r ──.        a *flow map* jumps from any t to any r < t in one evaluation:
                         ╲__________╱       ╲__ x_0      v(x_t, t, r),  of which the UNet hears r by `step_embedding`

With clip and noise mixed as x = cos(a) clip + sin(a) noise, where cos² a is alpha_bar, a DDIM step with v is a rotation:
x_r = cos(a_t - a_r) x_t - sin(a_t - a_r) v. So the sampler of a flow map is DDIM, with as many steps as one likes, and the
network is the teacher's with one more input. What v must be for a long jump is not known; each of three *targets* makes it
from shorter jumps of the network itself:

    shortcut       two jumps of half the length                            Frans et al., arXiv 2410.12557, section 3.2
    consistency    a short step along the path, then one jump              Song et al., arXiv 2303.01469, section 4
    mean-flow      the limit of ever shorter steps: a derivative           Geng et al., arXiv 2505.13447, section 4.1

and for a jump of length 0 it is the teacher's v, with guidance folded in (Meng et al., arXiv 2210.03142, section 3), so a
clip takes one evaluation in all. The targets are made by the averaged weights: later targets are made from what the network
has learnt, and the average keeps single errors out of them. Short jumps come first, as long ones are made of them.

Such jumps are right on average: where neighbouring noises lead to different clips, one long jump makes a blend of them. A
second training, which starts from the first (`start`), corrects that by *distribution matching* (Yin et al., arXiv
2311.18828, section 3.2). The ends of whole jumps are noised again, and two diffusion models guess what they were: the
teacher, which knows good clips, and a `fake` network, which learns all the while to know these ends. The difference of
their guesses points from what the network makes to what it should make, and each end moves by this difference.

Most jumps begin at pure noise. Half of the items have a clip's own caption, and below the last timestep start from that clip
noised. The others start from what the network makes of noise, with captions recombined: the looks of a picture's caption and
the motion of a clip's. So it learns to jump for things that no clip shows in motion; what they look like, the teacher says.

References: AnyFlow, arXiv 2605.13724 (a map between any two levels, training on one's own samples); v: Salimans and Ho,
arXiv 2202.00512, appendix D; TrigFlow, Lu and Song, arXiv 2410.11081, section 3 (rotations).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from minit2v.checkpoints.find import find_model, fingerprint
from minit2v.checkpoints.folder import save_model
from minit2v.datasets import find_data, options_of
from minit2v.datasets.base import Dataset
from minit2v.devices import warn_of_slow_bfloat16
from minit2v.diffusion.process import Diffusion
from minit2v.errors import UserError
from minit2v.loading import load
from minit2v.networks.unet import UNet
from minit2v.pixels import evenly
from minit2v.presets import ModelScopePreset
from minit2v.ranges import Checked, Share, Size, Weight
from minit2v.ranks import this_process
from minit2v.systems.modelscope import ModelScopeT2V
from minit2v.training.checkpoint import check_place
from minit2v.training.latents import cached
from minit2v.training.overrides import configure
from minit2v.training.run import finishing, preparing, torch_defaults
from minit2v.training.trainer import TrainConfig, train
from minit2v.training.unet import in_precision, uniform

FlowMap = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x (b c f h w), t (b,), r (b,)) -> v (b c f h w)
SHORT_STEP, DIFFERENCE = 8, 32  # parts of a jump: of `consistency` the first step, of `mean_flow` the difference

LENGTHS = (1, 2, 4, 8)  # jumps go over all timesteps, half of them, …
FIRST_CHANCES, LATER_CHANCES = (0.1, 0.2, 0.3, 0.4), (0.6, 0.2, 0.1, 0.1)  # at the start, and from half of the run on
FROM_NOISE = 0.7  # share of the jumps that begin at noise, as the only one of a clip in one step does
SHOWN = 6  # clips of a picture
CAPTIONS = 512  # of clips and of pictures, from which captions are recombined
RENOISED = ("renoise", "level", "context")  # what `match` needs of a batch


class Rotations:
    """Jumps along the path of a noise schedule: timesteps 0 … T - 1, and -1 for the end, as angles from clip to noise."""

    def __init__(self, diffusion: Diffusion):
        ends = torch.tensor([diffusion.final], dtype=torch.float64, device="cpu")
        self.angles = torch.cat([ends, diffusion.alpha_bar]).sqrt().clamp(max=1).arccos()

    def between(self, t: Tensor, r: Tensor) -> Tensor:
        """Angle from timesteps r to t, both (b,): (b, 1, 1, 1, 1) float32."""
        return (self.angles[t.cpu() + 1] - self.angles[r.cpu() + 1]).float().to(t.device)[:, None, None, None, None]

    def jump(self, x: Tensor, v: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """x_r from x_t (b, c, f, h, w) and v: the DDIM step."""
        angle = self.between(t, r)
        return angle.cos() * x - angle.sin() * v  # eq (21.1) · TrigFlow, section 3

    def v_between(self, x: Tensor, end: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """The v of the jump from x_t that leads to `end` at r < t."""
        angle = self.between(t, r)
        return (angle.cos() * x - end) / angle.sin()  # eq (21.2) · TrigFlow, section 3


def shortcut(path: Rotations, model: FlowMap, x: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """The v of two jumps of half the length."""
    half = torch.div(t + r, 2, rounding_mode="floor")
    middle = path.jump(x, model(x, t, half), t, half)
    end = path.jump(middle, model(middle, half, r), half, r)
    return path.v_between(x, end, t, r)  # eq (21.4) · shortcut models (4)


def consistency(path: Rotations, model: FlowMap, x: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """The v of a short step along the path, then one jump: the jumps from both places must end at one."""
    near = t - ((t - r) // SHORT_STEP).clamp(min=1)
    moved = path.jump(x, model(x, t, t), t, near)
    end = path.jump(moved, model(moved, near, r), near, r)
    return path.v_between(x, end, t, r)  # eq (21.5) · consistency models, algorithm 2


def mean_flow(path: Rotations, model: FlowMap, x: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """What the end of a jump says when its start moves along the path: it must not move. The derivative of v is a
    difference of two evaluations, so no forward differentiation is needed."""
    near = t - ((t - r) // DIFFERENCE).clamp(min=1)
    here, v = model(x, t, r), model(x, t, t)
    moved = path.jump(x, v, t, near)
    derivative = (here - model(moved, near, r)) / path.between(t, near)
    angle = path.between(t, r)
    return here - angle.cos() * (here - v) - angle.sin() * (x + derivative)  # eq (21.6) · MeanFlow (6), TrigFlow (9)


TARGETS = {"shortcut": shortcut, "consistency": consistency, "mean-flow": mean_flow}


@dataclass(frozen=True)
class Distillation(Checked):
    """Settings of a distillation."""

    target: str = "shortcut"  # row of TARGETS: what teaches the long jumps
    guidance: Weight = 0.0  # classifier-free guidance that is folded in; 0: the model's own
    teacher_share: Share = 0.25  # share of a batch that follows the teacher, with jumps of length 0
    matched_share: Share = 0.0  # share of a batch whose ends are matched in distribution with the teacher's clips
    own_share: Share = 0.5  # share of a batch that starts from what the network makes of noise itself
    clips: Size = 6144  # real clips read or drawn, encoded and kept
    bfloat16: bool = True  # compute in bfloat16, keep parameters in float32

    def __post_init__(self):
        super().__post_init__()
        if self.target not in TARGETS:
            raise UserError(f"target: expected one of {', '.join(TARGETS)}, found {self.target!r}")
        if (shares := self.teacher_share + self.matched_share) > 1:
            raise UserError(f"matched_share: expected at most 1 together with teacher_share, found {shares:g}")


class DistillationTask(nn.Module):
    """A flow map as a task for the trainer. `teacher` is a trained pipeline whose UNet predicts v; `folder` keeps the
    latents; `start` is the flow map to go on from, otherwise the teacher's UNet is. Raises UserError for a teacher that
    predicts something else."""

    def __init__(self, preset: ModelScopePreset, config: Distillation, data: Dataset, teacher: ModelScopeT2V,
                 folder: Path, start: UNet | None = None):  # fmt: skip
        super().__init__()
        warn_of_slow_bfloat16(config.bfloat16)
        if preset.diffusion.prediction != "v":
            raise UserError(f"distill: expected a model that predicts v, found {preset.diffusion.prediction}")
        self.preset, self.config, self.progress = preset, config, 0.0
        self.unet = UNet(preset.unet).to(memory_format=torch.channels_last)
        before = start or teacher.unet
        self.unet.load_state_dict(before.state_dict(), strict=before.config.step_embedding)
        self.first_chances = LATER_CHANCES if start else FIRST_CHANCES
        if config.matched_share:
            self.fake = UNet(teacher.preset.unet).to(memory_format=torch.channels_last)
            self.fake.load_state_dict(teacher.unet.state_dict())
        # pipelines are no nn.Module, so teacher, text tower and autoencoder are neither trained nor saved with the task
        self.teacher, self.pipe = teacher, ModelScopeT2V(preset, teacher.text, self.unet, teacher.autoencoder)
        self.guidance = config.guidance or teacher.preset.guidance
        self.path, self.averages = Rotations(teacher.diffusion), {}
        with this_process().main_process_first():  # the others find what the first has computed
            self.cache = cached(folder / "cache.safetensors", self.pipe, data, config.clips, images=0)
        views = [data.open("train", preset.frames, preset.height, preset.width, images) for images in (False, True)]
        said = [view.batch(range(min(CAPTIONS, len(view)))).captions for view in views]
        with torch.inference_mode():
            self.recombined = teacher.text.encode(recombined(*said, teacher.text.looks)).cpu()
        view = data.open("val", preset.frames, preset.height, preset.width)
        self.test = view.batch(range(min(SHOWN, len(view)))).captions

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        return {"unet": self.unet}

    def see_averages(self, averages: nn.ModuleDict) -> None:
        """Of the loop: the averaged networks, which make the targets."""
        self.averages = dict(averages)  # a dict, so that they are no part of the task's own state

    def draw(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """n clips: latents, noise and renoise (n, c, f, h, w); t, r and level (n,), context (n, tokens, d); own (n,):
        whether the network makes the noisy clip from the noise itself; matched (n,): whether the end of its whole jump is
        noised again, by `renoise` at `level`. r is t where the teacher is followed."""
        T = self.preset.timesteps
        index = torch.randint(len(self.cache["clips.latents"]), (n,), generator=generator, device="cpu")
        latents = self.cache["clips.latents"][index].float()
        context = self.cache["contexts"][self.cache["clips.captions"][index, 0]].float()
        other = self.recombined[torch.randint(len(self.recombined), (n,), generator=generator, device="cpu")]
        own = shuffled(generator, n) < round(n * self.config.own_share)
        context = torch.where(own[:, None, None], other, context)
        t = ((shuffled(generator, n) + uniform(generator, n)) / n * T).long().clamp(max=T - 1)
        item = torch.arange(n, device="cpu")
        by_teacher = item < round(n * self.config.teacher_share)
        matched = (item >= n - round(n * self.config.matched_share)) & ~by_teacher
        from_noise = (uniform(generator, n) < FROM_NOISE) | matched
        t = torch.where(from_noise & ~by_teacher, T - 1, t)
        part = torch.tensor(LENGTHS, device="cpu")[torch.multinomial(self.chances, n, True, generator=generator)]
        r = torch.where(by_teacher, t, (t - T // torch.where(matched, 1, part)).clamp(min=-1))
        noise, renoise = torch.randn((2, *latents.shape), generator=generator, dtype=torch.float32, device="cpu")
        level = torch.randint(T, (n,), generator=generator, device="cpu")
        return {"latents": latents, "noise": noise, "t": t, "r": r, "context": context, "own": own,
                "matched": matched, "renoise": renoise, "level": level}  # fmt: skip

    @property
    def chances(self) -> Tensor:
        """Chances of the lengths of jumps, at this time of the run."""
        first, later = torch.tensor([self.first_chances, LATER_CHANCES], dtype=torch.float32, device="cpu")
        return first.lerp(later, min(1.0, 2 * self.progress))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        t, r, context = batch["t"], batch["r"], batch["context"]
        matched, follows = batch["matched"], r == t
        with torch.no_grad():
            x = self.noisy(batch)
            target = torch.empty_like(x)
            target[~matched] = self.target(x[~matched], t[~matched], r[~matched], context[~matched])
        v = self.flow_map(self.unet, context)(x, t, r)
        kinds = {"teacher loss": follows, "jump loss": ~follows & ~matched, "matching loss": matched}
        fake_losses = torch.zeros_like(t, dtype=torch.float32)
        if matched.any():
            ends = self.path.jump(x, v.detach(), t, r)[matched]
            moved, fake_losses[matched] = self.match(ends, *(batch[name][matched] for name in RENOISED))
            target[matched] = self.path.v_between(x[matched], moved, t[matched], r[matched])
        losses = ((v - target) ** 2).flatten(1).mean(1)
        seen = {kind: losses[items] for kind, items in kinds.items()} | {"fake loss": fake_losses[matched]}
        return (losses + fake_losses).mean(), {kind: part.mean().item() for kind, part in seen.items() if len(part)}

    def match(self, ends: Tensor, renoise: Tensor, level: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Where `ends` (b, c, f, h, w), which the network made, are to move to (b, c, f, h, w); and what the fake network,
        which learns to know them, loses (b,). The step is not normalised as in the paper: the teacher and the fake
        network begin alike, so it is small of itself, and a normalised one learnt less."""
        diffusion = self.pipe.diffusion
        x = diffusion.add_noise(ends, renoise, level)
        fake_v = in_precision(self.fake, self.config.bfloat16, x, level, context)
        with torch.no_grad():
            real, fake = (diffusion.to_x0_eps(v, x, level)[0] for v in (self.teacher_v(x, level, context), fake_v))
        moved = ends + real - fake  # eq (21.7) · DMD, section 3.2
        return moved, diffusion.loss(fake_v, ends, renoise, level, per_clip=True)

    def noisy(self, batch: dict[str, Tensor]) -> Tensor:
        """x_t of a batch: from its latents and noise, or where it is `own` by one jump from the noise."""
        t, noise, last = batch["t"], batch["noise"], self.preset.timesteps - 1
        x = self.pipe.diffusion.add_noise(batch["latents"], noise, t)
        own = batch["own"] & (t < last)  # where t is the last timestep, x is the noise in any case
        if own.any():
            noise, r = noise[own], t[own]
            start, model = torch.full_like(r, last), self.flow_map(self.averaged, batch["context"][own])
            x[own] = self.path.jump(noise, model(noise, start, r), start, r)
        return x

    def target(self, x: Tensor, t: Tensor, r: Tensor, context: Tensor) -> Tensor:
        """The v that is to be learnt: the teacher's, or of a jump that of shorter ones."""
        target, jumps = torch.empty_like(x), r != t
        if jumps.any():
            model = self.flow_map(self.averaged, context[jumps])
            target[jumps] = TARGETS[self.config.target](self.path, model, x[jumps], t[jumps], r[jumps])
        if not jumps.all():
            target[~jumps] = self.teacher_v(x[~jumps], t[~jumps], context[~jumps])
        return target

    @property
    def averaged(self) -> UNet:
        """The network that makes the targets."""
        return self.averages.get("unet", self.unet)

    def flow_map(self, unet: UNet, context: Tensor) -> FlowMap:
        """v of the jump from t to r, float32."""
        return lambda x, t, r: in_precision(unet, self.config.bfloat16, x, t, context, until=r)

    def teacher_v(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The teacher's v, with guidance."""
        empty = self.cache["contexts"][0].to(context).expand_as(context)  # row 0 is the empty caption
        both = in_precision(self.teacher.unet.to(x.device), self.config.bfloat16, torch.cat([x, x]), torch.cat([t, t]),
                            torch.cat([empty, context]))  # fmt: skip
        u, c = both.chunk(2)
        return u + self.guidance * (c - u)  # eq (21.3) · Guided distillation, section 3

    def picture(self, columns: int = 8) -> np.ndarray:
        """Clips of a few validation captions in one step: uint8 (rows H, columns W, 3)."""
        for network in (self.pipe.text, self.pipe.autoencoder):  # the trainer has moved the UNet alone
            network.to(self.pipe.device)
        clips = self.pipe(self.test, seed=0)
        show = evenly(self.preset.frames, columns)
        return rearrange(np.stack([clip.pixels[show] for clip in clips]), "r f H W c -> (r H) (f W) c")


def shuffled(generator: torch.Generator, n: int) -> Tensor:
    """0 … n - 1 in a random order (n,)."""
    return torch.randperm(n, generator=generator, device="cpu")


def recombined(clips: list[str], pictures: list[str], looks: Callable[[str], str]) -> list[str]:
    """The looks of each picture's caption with the motion of a clip's; the clips' captions if none tells of motion.

    >>> recombined(["a ring moves left"], ["a blue heart"], lambda caption: caption.split(" moves")[0])
    ['a blue heart moves left']
    """
    motions = [caption[len(looks(caption)) :] for caption in clips]
    motions = [motion for motion in motions if motion]
    if not motions:
        return clips
    return [looks(caption) + motions[i % len(motions)] for i, caption in enumerate(pictures or clips)]


def fast(preset: ModelScopePreset) -> ModelScopePreset:
    """The preset of a distilled model: its name, one step, guidance folded in."""
    unet = replace(preset.unet, step_embedding=True)
    return replace(preset, name=f"{preset.name}-fast", unet=unet, steps=1, guidance=1.0)


LOOP = TrainConfig(budget=1800.0, batch=8, lr=5e-4, weight_decay=0.0, betas=(0.9, 0.99), grad_clip=1.0, ema=0.999)
FIRST = Distillation(), LOOP
MATCHING = Distillation(teacher_share=0.125, matched_share=0.5), replace(LOOP, lr=3e-4)  # from a flow map


def distill(model: str | Path, out: str | Path, resume: bool = False, settings: Mapping[str, Any] | None = None,
            data: str | Path = "moving-things", start: str | Path | None = None) -> Path:  # fmt: skip
    """A model of few steps from a trained one, into `out`; returns it.

    Args:
        model: shipped name or folder of a trained model that predicts v.
        out: gets the whole model, and distillation/ with checkpoint, log and picture.
        settings: values or their texts by name: fields of `Distillation` and `TrainConfig`, options of the data.
        data: name or folder of the data set that the model was trained on.
        start: a model that was distilled from `model` before; the training goes on from it, with distribution matching.

    Raises UserError for an unknown name or an ill-typed value, another kind of model, or a place that is not as expected.
    """
    model, out = find_model(model), Path(out)
    before = None if start is None else find_model(start)
    if out.resolve() in [place.resolve() for place in (model, before) if place]:
        raise UserError(f"--out: expected another folder than the model's, found {out} for both; choose another --out")
    options = {option: value for option, value in (settings or {}).items() if option in options_of(data)}
    settings = {name: value for name, value in (settings or {}).items() if name not in options}
    config, loop = configure(settings, *(MATCHING if before else FIRST))
    check_place(out / "distillation", resume)
    if not resume and any((out / name).is_file() for name in ("config.json", "model_index.json", "configuration.json")):
        raise UserError(f"--out: expected a folder for the new model, found a model in {out}; remove it, or choose another --out")
    teacher = load(model, device="cpu", dtype="float32")
    if teacher.preset.system != ModelScopePreset.system:
        raise UserError(f"distill: expected a model of the system modelscope, found {teacher.preset.system}")
    preset, source = fast(teacher.preset), find_data(data, teacher.preset.fps, **options)
    grown = before and load(before, device="cpu", dtype="float32")
    if grown and grown.preset != preset:
        raise UserError(f"--from: expected a model that was distilled from {teacher.preset.name}, "
                        f"found {grown.preset.name} in {before}")  # fmt: skip
    with torch_defaults():
        torch.manual_seed(loop.seed)
        with preparing():
            task = DistillationTask(preset, config, source, teacher, out / "distillation", grown and grown.unet)
        recorded = asdict(config) | {"teacher": fingerprint(model), "data": source.identity()}
        recorded |= {"start": fingerprint(before)} if before else {}
        averaged = train(task, out / "distillation", loop, resume, recorded)
    if this_process().is_main_process:
        with finishing():
            save_model(out, preset, text=teacher.text, autoencoder=teacher.autoencoder, unet=averaged["unet"].half())
    return out
