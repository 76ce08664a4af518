"""The seven systems of the paper's table: what makes each that system, and the ordinary commands on every one.

Sizes are tiny and weights random or hardly trained: these are properties of the architectures, not of the trained models.
"""

import shutil
from collections import defaultdict
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import minit2v
from minit2v.checkpoints.folder import save_module
from minit2v.cli import main
from minit2v.datasets import MovingThingsData
from minit2v.errors import UserError
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.autoregressive import draw
from minit2v.networks.clip import build_clip
from minit2v.networks.unet import ImageUNet
from minit2v.pixels import to_pixels
from minit2v.presets import AutoencoderConfig, UNetConfig, VisionConfig
from minit2v.recording.recorder import record
from minit2v.recording.recording import Recording
from minit2v.systems import build, find_preset, system_of
from minit2v.systems.cogvideo import (
    ChannelConfig,
    CogVideo,
    PictureTransformer,
    TemporalChannel,
    Words,
    WordsConfig,
    places,
)
from minit2v.systems.magicvideo import FrameAdaptor, MagicVideo, MagicVideoConfig, MagicVideoUNet
from minit2v.systems.makeavideo import MakeAVideoUNet, enlarged, folded, halved, unfolded
from minit2v.systems.nuwa import NearbyAttention, Nuwa, NuwaConfig
from minit2v.systems.settings import SamplingSettings, checked
from minit2v.systems.video_decoder import VideoDecoder, VideoDecoderConfig
from minit2v.systems.videoldm import Mixed, VideoLDMUNet
from minit2v.training import makeavideo
from minit2v.training.tokens import BIAS_RATE, TokenTask, TokenTraining
from minit2v.training.unet import grouped, taught_by_pictures
from minit2v.video import Clip

DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def randomised(module: nn.Module) -> nn.Module:
    """Every parameter at random, also those that start at zero: a property must not hold because of the zeros."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


# ---- NÜWA -------------------------------------------------------------------------------------------------------------


def test_nearby_attention_sees_its_window_and_nothing_later():
    attention, x = randomised(NearbyAttention(8, 2, (3, 3, 3))), torch.randn(1, 4, 5, 6, 8, dtype=DOUBLE, requires_grad=True)
    out = attention(x)
    for place in ((0, 0, 0), (2, 2, 3), (3, 4, 5), (1, 0, 5)):
        (gradient,) = torch.autograd.grad(out[0][place].sum(), x, retain_graph=True)
        seen = {tuple(at) for at in gradient[0].abs().sum(-1).nonzero().tolist()}
        assert seen == {at for at in product(range(4), range(5), range(6))
                        if at <= place and all(abs(a - b) <= 1 for a, b in zip(at, place))}  # fmt: skip


def test_nearby_attention_with_a_window_over_the_whole_clip_is_dense_causal_attention():
    attention, x = randomised(NearbyAttention(8, 2, (7, 9, 11))), torch.randn(2, 4, 5, 6, 8, dtype=DOUBLE)
    flat = x.flatten(1, 3)
    q, k, v = (layer(flat).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (attention.to_q, attention.to_k, attention.to_v))
    clip = list(product(range(4), range(5), range(6)))
    row = lambda here, there: attention.window.index(tuple(b - a for a, b in zip(here, there))) if there <= here else 0
    bias = attention.bias[:, torch.tensor([[row(here, there) for there in clip] for here in clip])]
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias
    scores = scores.masked_fill(torch.ones(120, 120).triu(1).bool(), -torch.inf)
    dense = attention.to_out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    assert torch.allclose(attention(x).flatten(1, 3), dense, atol=1e-12)


def test_nuwa_writes_with_a_memory_what_it_computes_at_once():
    config = NuwaConfig(codes=20, frames=3, rows=4, columns=5, width=16, heads=2, encoder_layers=1, layers=2, context_dim=8)
    model = randomised(Nuwa(config)).eval()
    tokens, context = torch.randint(20, (2, 3, 4, 5)), torch.randn(2, 6, 8, dtype=DOUBLE)
    with torch.no_grad():
        whole, text, memory = model(tokens, context), model.encode(context), model.memory(2, (3, 4, 5))
        before = torch.full((2,), 20)
        for place in product(range(3), range(4), range(5)):
            at = (slice(None), *place)
            assert torch.allclose(model.step(before, text, place, memory), whole[at], atol=1e-12)
            before = tokens[at]


# ---- CogVideo ---------------------------------------------------------------------------------------------------------

SIZES = ChannelConfig(codes=20, words=8, length=5, places=4, width=16, heads=2, layers=2)


def test_cogvideo_begins_as_its_picture_transformer():
    image = randomised(PictureTransformer(SIZES))
    channel = TemporalChannel(SIZES).double().copy(image)
    words, tokens = torch.randint(8, (3, 5)), torch.randint(20, (3, 1, 2, 2))
    assert torch.equal(channel.mix.sigmoid(), torch.full_like(channel.mix, 0.5))
    assert torch.allclose(image(words, tokens, channel), image(words, tokens), atol=1e-12)


def test_a_row_of_cogvideos_bias_is_for_one_distance():
    at = places(3, [0, 1, 3], 4, [False] * 3)
    inside, along = at.apart(at, 4)
    rows = defaultdict(set)
    for i, j in product(range(len(at.frame)), repeat=2):
        words, frames = min(at.frame[i], at.frame[j]) < 0, int(at.frame[i] - at.frame[j])
        distance = "words" if words else (frames, int(at.index[i] - at.index[j]))
        rows[int(along[i, j])].add(distance)
        if words or frames == 0:
            assert inside[i, j] == (0 if words else 1 + 4 + distance[1])
    assert all(len(distances) == 1 for distances in rows.values())
    assert len(rows) == len(set().union(*rows.values())) and max(rows) < TemporalChannel(SIZES).bias.shape[-1]


def test_muon_steps_the_matrices_of_a_transformer_and_nothing_else():
    names = {"encoder.layers.0.linear1.weight": 2.0, "blocks.0.nearby.to_q.weight": 2.0, "blocks.0.cross.to_k.weight": 2.0,
             "blocks.0.nearby.bias": BIAS_RATE, "tokens.weight": 1.0, "places.0": 1.0, "head.weight": 1.0,
             "blocks.0.norm1.weight": 1.0}  # fmt: skip
    task = SimpleNamespace(network=Nuwa(NuwaConfig(20, 2, 2, 2, 8, 2, 1, 1)), config=TokenTraining(muon_rate=2.0))
    groups = TokenTask.parameter_groups(task, 0.1)
    found = {id(p): (group["lr"], group["orthogonal"]) for group in groups for p in group["params"]}
    parameters = dict(task.network.named_parameters())
    assert len(found) == len(parameters) == sum(len(group["params"]) for group in groups)
    for name, rate in names.items():
        assert found[id(parameters[name])] == (0.1 * rate, rate == 2.0), name


@pytest.mark.parametrize("stage", ["keyframes", "between"])
def test_a_frame_of_cogvideo_depends_on_what_its_stage_gives_it(stage):
    image, channel = randomised(PictureTransformer(SIZES)), randomised(TemporalChannel(SIZES))
    words, tokens = torch.randint(8, (1, 5)), torch.randint(20, (1, 5, 2, 2))
    given = [stage == "between" and i % 2 == 0 for i in range(5)]
    logits = image(words, tokens, channel, 1, given)
    for changed in range(5):
        other = tokens.clone()
        other[:, changed, 0, 0] = (other[:, changed, 0, 0] + 1) % 20
        moved = [not torch.equal(a, b) for a, b in zip(image(words, other, channel, 1, given)[0], logits[0])]
        for frame in (i for i in range(5) if not given[i]):
            assert moved[frame] == (given[changed] or changed <= frame)


@pytest.mark.parametrize("stage", ["keyframes", "between"])
def test_cogvideo_writes_with_a_memory_what_it_computes_at_once(stage):
    image, channel = randomised(PictureTransformer(SIZES)), randomised(TemporalChannel(SIZES))
    given, greedy = [stage == "between" and i % 2 == 0 for i in range(5)], SimpleNamespace(top_k=1, temperature=1.0)
    words, tokens = torch.randint(8, (2, 5)), torch.randint(20, (2, 5, 2, 2))
    stands, generators = tokens.clone(), [torch.Generator().manual_seed(i) for i in range(2)]
    with torch.no_grad():
        pipe = object.__new__(CogVideo)  # of a system: the two networks of a stage
        pipe.image, pipe.preset = image, greedy
        written = list(pipe.fill(words, None, tokens, given, channel, 1, generators, 1.0))
        likeliest = image(words, tokens, channel, 1, given).argmax(dim=-1)
    assert written == [i for i in range(5) if not given[i]]
    for i in range(5):
        assert torch.equal(tokens[:, i], stands[:, i] if given[i] else likeliest[:, i])


# ---- Video LDM and MagicVideo --------------------------------------------------------------------------------------------

SIZE = dict(channels=(8, 16), attention=(False, True), layers_per_level=1, head_dim=4, context_dim=8, norm_groups=4, dropout=0.0,
            first_temporal_heads=0, text_in_embedding=True, scene_prior=True, scale_shift=True)  # fmt: skip


def inputs(f=4, b=2):
    x, context = torch.randn(b, 4, f, 4, 4, dtype=DOUBLE), torch.randn(b, 3, 8, dtype=DOUBLE)
    return x, torch.randint(1000, (b,)), context


def begun(unet: nn.Module, image: nn.Module) -> nn.Module:
    unet.load_state_dict(image.state_dict(), strict=False)
    return unet


def frame_by_frame(image, x, t, context):
    return torch.cat([image(part, t, context) for part in x.split(1, dim=2)], dim=2)


def test_video_ldm_with_alpha_1_is_its_image_model_bit_for_bit():
    image = randomised(ImageUNet(UNetConfig(**SIZE)))
    unet, (x, t, context) = begun(randomised(VideoLDMUNet(UNetConfig(**SIZE))), image), inputs()
    mixed = [module for module in unet.modules() if isinstance(module, Mixed)]
    assert {id(p) for module in mixed for p in module.parameters()} == {id(p) for p in unet.temporal_parameters()}
    with torch.no_grad():
        for module in mixed:
            module.alpha.fill_(0.4)
        assert not torch.allclose(unet(x, t, context), image(x, t, context))
        for module in mixed:
            module.alpha.fill_(1.0)
        assert torch.equal(unet(x, t, context), unet(x, t, context, temporal=False))
        assert torch.equal(unet(x, t, context), image(x, t, context))
        assert torch.allclose(unet(x, t, context), frame_by_frame(image, x, t, context), atol=1e-12)


def test_a_scene_prior_learns_at_its_own_rate_also_where_it_is_a_temporal_layer():
    unet = VideoLDMUNet(UNetConfig(**SIZE))
    rates = SimpleNamespace(muon_rate=0.0, temporal_rate=2.0, scene_prior_rate=3.0, bfloat16=False)
    rate = {id(p): group["lr"] for group in grouped(unet, rates, 1.0) for p in group["params"]}
    assert len(unet.scene_priors()) == 2  # of the image model, and of the clip
    assert {rate[id(p)] for prior in unet.scene_priors() for p in prior.parameters()} == {3.0}
    assert rate[id(unet.motion.alpha)] == 2.0 and rate[id(unet.conv_in.weight)] == 1.0


def test_the_temporal_layers_of_video_ldm_know_which_frames_they_see():
    unet, (x, t, context) = randomised(VideoLDMUNet(UNetConfig(**SIZE))), inputs()
    unet.motion = None  # what else knows
    every, fourth = torch.arange(4).expand(2, -1), torch.arange(0, 16, 4).expand(2, -1)
    with torch.no_grad():
        assert torch.equal(unet(x, t, context), unet(x, t, context, positions=every))
        assert not torch.allclose(unet(x, t, context), unet(x, t, context, positions=fourth))
        mixed = torch.stack([every[0], fourth[0]])
        assert torch.allclose(unet(x, t, context, positions=mixed)[1], unet(x, t, context, positions=fourth)[1], atol=1e-12)
        pictures = [unet(x, t, context, temporal=False, positions=numbers) for numbers in (every, fourth)]
    assert torch.equal(*pictures)


def test_a_frame_has_the_row_of_its_number_in_a_sparse_clip_too():
    adaptor, clip = randomised(FrameAdaptor(3, 8)), torch.randn(8, 3, 2, 2, dtype=DOUBLE)
    numbers = torch.tensor([[1, 4, 7]])
    with torch.no_grad():
        assert torch.equal(adaptor(clip[numbers[0]], 3, numbers), adaptor(clip, 8)[numbers[0]])
        assert torch.equal(adaptor(clip, 8, 2 * torch.arange(8)[None]), adaptor(clip, 8))  # 0, 2, …, 14 is spread over 0 to 7
        between = adaptor(clip[:4], 4, torch.tensor([[0.0, 2.5, 3.0, 7.0]]))[1]
        assert torch.allclose(between, (adaptor(clip[1].repeat(8, 1, 1, 1), 8)[[2, 3]]).mean(0))


def test_frame_adaptors_are_tables_and_no_matrices():
    unet = MagicVideoUNet(MagicVideoConfig(**SIZE, frames=4))
    rates = SimpleNamespace(muon_rate=2.0, temporal_rate=10.0, scene_prior_rate=3.0, bfloat16=False)
    groups = grouped(unet, rates, 1.0)
    orthogonal = {id(p): group["orthogonal"] for group in groups for p in group["params"]}
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    adaptors = [module for module in unet.modules() if isinstance(module, FrameAdaptor)]
    assert adaptors and not any(orthogonal[id(p)] for adaptor in adaptors for p in adaptor.parameters())
    assert orthogonal[id(unet.middle.first.res.conv1.weight)] and not orthogonal[id(unet.conv_in.weight)]
    assert {rate[id(p)] for adaptor in adaptors for p in adaptor.parameters()} == {10.0}
    # Muon's steps do not depend on how large a gradient is: one rate for old and new layers
    assert rate[id(unet.middle.first.directed.to_q.weight)] == rate[id(unet.middle.first.res.conv1.weight)] == 2.0


@pytest.mark.parametrize("network", [VideoLDMUNet, lambda config: MagicVideoUNet(MagicVideoConfig(**vars(config), frames=4))])
def test_one_clip_alone_is_what_it_is_among_others(network):
    unet, (x, t, context) = randomised(network(UNetConfig(**SIZE))), inputs()
    with torch.no_grad():
        together, alone = unet(x, t, context), [unet(x[i : i + 1], t[i : i + 1], context[i : i + 1]) for i in range(2)]
    assert torch.allclose(torch.cat(alone), together, atol=1e-12)


@pytest.mark.parametrize("name, frame_numbers", {"videoldm": set(), "nano": {"frame_embedding.weight", "layout.frame.weight"}}.items())
def test_what_trains_beside_a_frozen_image_model_is_what_no_picture_has_taught(name, frame_numbers):
    """The temporal layers; and what a plain UNet learns of frame numbers, which would otherwise stay as it was drawn."""
    with torch.device("meta"):
        unet = build(find_preset(name))["unet"]
    temporal = {id(parameter) for parameter in unet.temporal_parameters()}
    taught = taught_by_pictures(unet)
    found = {key for key, parameter in unet.named_parameters() if key not in taught and id(parameter) not in temporal}
    assert found == frame_numbers and not any(id(unet.get_parameter(key)) in temporal for key in taught)


def test_the_temporal_layers_of_video_ldm_move_to_another_image_model():
    first, second = (randomised(ImageUNet(UNetConfig(**SIZE))) for _ in range(2))
    unet, (x, t, context) = begun(randomised(VideoLDMUNet(UNetConfig(**SIZE))), first), inputs()
    before = [p.clone() for p in unet.temporal_parameters()]
    begun(unet, second)
    assert all(torch.equal(a, b) for a, b in zip(before, unet.temporal_parameters()))
    with torch.no_grad():
        assert torch.allclose(unet(x, t, context, temporal=False), frame_by_frame(second, x, t, context), atol=1e-12)


def test_a_frame_of_magicvideo_hears_nothing_of_later_frames():
    unet, (x, t, context) = randomised(MagicVideoUNet(MagicVideoConfig(**SIZE, frames=4))), inputs()
    x.requires_grad_()
    out = unet(x, t, context)
    for frame in range(4):
        (gradient,) = torch.autograd.grad(out[:, :, frame].sum(), x, retain_graph=True)
        heard = gradient.abs().sum((0, 1, 3, 4)) > 0
        assert heard.tolist() == [other <= frame for other in range(4)]


def test_magicvideo_with_neutral_adaptors_is_its_image_model():
    image = randomised(ImageUNet(UNetConfig(**SIZE)))
    unet, (x, t, context) = begun(MagicVideoUNet(MagicVideoConfig(**SIZE, frames=4, rate_embedding=True)).double(), image), inputs()
    with torch.no_grad():
        nn.init.zeros_(unet.layout.frame.weight)  # the shared departure, which does know the frame's number
        wanted = frame_by_frame(image, x, t, context)
        assert torch.allclose(unet(x, t, context), wanted, atol=1e-12)
        adaptor = next(module for module in unet.modules() if isinstance(module, FrameAdaptor))
        adaptor.shift[2] += 1.0
        moved = (unet(x, t, context) - wanted).abs().amax((0, 1, 3, 4)) > 1e-6
        assert not moved[:2].any() and moved[2]
        adaptor.shift[2] -= 1.0
        assert torch.allclose(unet(x, t, context, positions=torch.arange(4)[None] * 3.0), wanted, atol=1e-12)
        nn.init.normal_(unet.rate_embedding.weight)
        assert not torch.allclose(unet(x, t, context, positions=torch.arange(4)[None] * 3.0), unet(x, t, context))


@pytest.mark.parametrize("temporal", ["convolution", "attention"])
def test_a_decoder_that_sees_time_begins_as_the_one_of_pictures(temporal):
    sizes = dict(channels=4, multipliers=(1, 2), layers_per_level=1, norm_groups=2, mid_attention=False)
    autoencoder = randomised(VQGAN(AutoencoderConfig(**sizes)))
    decoder, latents = VideoDecoder(VideoDecoderConfig(**sizes, temporal=temporal)).double(), torch.randn(2, 4, 5, 3, 3, dtype=DOUBLE)
    decoder.decoder.load_state_dict(autoencoder.decoder.state_dict())
    decoder.post_quant_conv.load_state_dict(autoencoder.post_quant_conv.state_dict())
    alone = torch.stack([autoencoder.decode(frames) for frames in latents.unbind(2)], dim=2)
    assert torch.allclose(decoder(latents), alone, atol=1e-12)
    randomised(decoder)
    latents.requires_grad_()
    (gradient,) = torch.autograd.grad(decoder(latents)[:, :, 2].sum(), latents)
    heard = (gradient.abs().sum((0, 1, 3, 4)) > 0).tolist()
    assert heard == ([True] * 5 if temporal == "convolution" else [True] * 3 + [False] * 2)


# ---- Make-A-Video --------------------------------------------------------------------------------------------------------


def test_make_a_video_begins_as_its_image_model():
    sizes = SIZE | dict(rate_embedding=True)
    image, (x, t, context) = randomised(ImageUNet(UNetConfig(**sizes))), inputs()
    unet = begun(MakeAVideoUNet(UNetConfig(**sizes)).double(), image)
    nn.init.zeros_(unet.layout.frame.weight)  # the shared departure, which does know the frame's number
    with torch.no_grad():
        assert torch.allclose(unet(x, t, context), frame_by_frame(image, x, t, context), atol=1e-12)


def test_blocks_of_pixels_become_channels_and_come_back():
    x = torch.randn(2, 3, 4, 8, 12)
    assert torch.equal(unfolded(folded(x, 4), 4), x)
    assert folded(x, 2)[1, :4, 3, 1, 2].tolist() == x[1, 0, 3, 2:4, 4:6].flatten().tolist()
    assert torch.allclose(halved(enlarged(x)), x)


class Renamed:
    """A data set whose clips have other captions."""

    def __init__(self, data):
        self.data, self.name, self.test_splits = data, data.name, data.test_splits
        self.words, self.identity = data.words, data.identity

    def open(self, split, frames, height, width, images=False):
        view = self.data.open(split, frames, height, width, images)
        return view if images else RenamedClips(view)


class RenamedClips:
    def __init__(self, view):
        self.view = view

    def __len__(self):
        return len(self.view)

    def batch(self, indices):
        batch = self.view.batch(indices)
        return batch._replace(captions=["nothing"] * len(batch.captions), specs=None)


class Enlarges(nn.Module):
    """Answers with what it is told to make larger."""

    def forward(self, x, t, context, condition, **options):
        return condition


def test_the_later_stages_of_make_a_video_answer_with_clean_frames(small_makeavideo, monkeypatch):
    """So a clip of `upscale` has no noise left, although that network is narrower than a block of pixels."""
    pipe, frames = small_makeavideo, torch.rand(1, 3, 4, 8, 8) * 2 - 1
    monkeypatch.setattr(pipe, "upscale", Enlarges())
    expected = to_pixels(enlarged(frames)[0].transpose(0, 1))
    assert np.abs(pipe.whole(frames, seed=0).astype(int) - expected.numpy()).max() <= 1
    preset = find_preset("makeavideo")
    for task in (makeavideo.BetweenTask, makeavideo.UpscaleTask):
        assert task.schedule(None, preset) == pipe.later_diffusion.config != makeavideo.UNetTask.schedule(None, preset)
    assert preset.upscale.channels[0] < preset.upscale.in_channels


def test_key_frames_take_at_least_the_fresh_noise_of_the_preset(small_makeavideo, monkeypatch):
    pipe, steps = small_makeavideo, small_makeavideo.preset.steps
    key_frames = lambda **options: [step.x for step in pipe.stream("a red circle", seed=0, **options)][steps - 1]
    fresh = key_frames()
    assert torch.isfinite(key_frames(sampler="dpm++")).all()  # it takes none
    monkeypatch.setattr(pipe, "preset", replace(pipe.preset, key_eta=0.0))
    assert torch.equal(key_frames(eta=1.0), fresh) and not torch.allclose(key_frames(), fresh)


def test_make_a_video_leaves_out_words_and_keeps_what_stands_beside_punctuation(small_makeavideo):
    with pytest.warns(UserWarning, match="left out 'moves left'"):
        assert small_makeavideo.known("A large, red circle! moves left") == "a large red circle"
    assert small_makeavideo.known("A red circle!") == "A red circle!"  # its own tokenizer leaves the mark out
    with pytest.raises(UserError, match="negative: expected none"):
        small_makeavideo("a red circle moves left", negative="blue")


def test_a_recording_of_make_a_video_goes_to_the_end_of_its_last_stage(small_makeavideo, tmp_path):
    (clip,) = record(small_makeavideo, ["a red circle"], tmp_path, seed=0)
    kept = Recording.load(tmp_path / "recording.npz")
    assert len(kept.timesteps) == small_makeavideo.preset.steps + 2 and kept.steps[-1] == len(kept.timesteps) - 1
    assert np.abs(kept.preview[-1].astype(int) - clip.pixels[kept.frames]).mean() < 3  # a WebP is not exact


@pytest.mark.parametrize("name", ["magicvideo", "videoldm"])
def test_the_memory_plan_knows_the_decoder_that_is_used(name):
    preset = find_preset(name)
    calls = system_of(preset).pipeline.calls(preset, checked(["a"], SamplingSettings(), preset), clips=3, batched=True)
    assert "autoencoder" not in calls and calls["decoder"] == ("forward", ((1, 4, 16, 8, 8),))


def test_windows_of_magicvideo_go_with_its_own_frame_rate_alone():
    preset = find_preset("magicvideo")
    with torch.device("meta"):
        pipe = MagicVideo(preset, **build(preset))
    assert pipe.checked("a", {"window": 8, "frames": 32})[1].window == 8 and pipe.checked("a", {"fps": 4.0})[1].fps == 4
    with pytest.raises(UserError, match="window: expected none with magicvideo and fewer frames a second than 8, found 8"):
        pipe.checked("a", {"window": 8, "fps": 4.0})


@pytest.mark.parametrize("part", ["UNET", "BETWEEN", "UPSCALE"])
def test_what_make_a_video_learns_from_videos_has_no_text(part, tmp_path):
    small = dict(channels=(8, 16), head_dim=4, norm_groups=4)
    preset = find_preset("makeavideo")
    preset = replace(preset, frames=6, height=16, width=16, **{
        name: replace(getattr(preset, name), **small) for name in ("unet", "between", "upscale")
    }, text=replace(preset.text, vision=VisionConfig(16, 8, 32, 1, 2)))  # fmt: skip
    save_module(makeavideo.Vision(build_clip(preset.text).visual), tmp_path / "vision.safetensors")
    save_module(ImageUNet(preset.unet), tmp_path / "image.safetensors")
    drawn = []
    for data in (MovingThingsData(), Renamed(MovingThingsData())):
        row = getattr(makeavideo, part)
        task = row.task(preset, replace(row.config, clips=4), data, tmp_path)
        drawn.append(task.draw(torch.Generator().manual_seed(0), 2))
    assert drawn[0].keys() == drawn[1].keys() and all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    view = makeavideo.Unlabelled(MovingThingsData().open("train", 6, 16, 16))
    assert not any("caption" in name or "batch" in name for name in dir(view))


# ---- all ---------------------------------------------------------------------------------------------------------------

CODED = "autoencoder.channels=4 autoencoder.norm_groups=2 autoencoder.multipliers=1,2,2 autoencoder.codes=16".split()
SMALL = "height=16 width=16".split()
MODELS = {
    "nuwa": (
        [*SMALL, *CODED, "frames=4", "transformer.codes=16", "transformer.frames=4", "transformer.rows=4",
         "transformer.columns=4", "transformer.width=16", "transformer.heads=2", "transformer.encoder_layers=1",
         "transformer.layers=1"],
        {"autoencoder": ["discriminator_width=4"], "text": ["clips=24", "images=24", "tests=8"], "transformer": ["clips=8", "images=8"]},
    ),
    **{name: (
        [*SMALL, *CODED[:3], "frames=4", "unet.channels=8,16", "unet.head_dim=4", "unet.norm_groups=4", "steps=2",
         *(f"decoder.{size.split('.')[1]}" for size in CODED[:3])],
        {"autoencoder": ["discriminator_width=4"], "text": ["clips=24", "images=24", "tests=8"],
         "image": ["images=16", "clips=2"], "unet": ["clips=8", "images=8", "sparse_frames=4"],
         "decoder": ["frames=3", "discriminator_width=4"]},
    ) for name in ("videoldm", "magicvideo")},
    "makeavideo": (
        [*SMALL, "frames=6", "steps=2", "fill_steps=1", "prior.width=8", "prior.layers=1", "text.vision.size=16",
         "text.vision.patch=8", *(f"{part}.{size}" for part in ("unet", "between", "upscale") for size in
                                  ("channels=8,16", "head_dim=4", "norm_groups=4"))],
        {"text": ["images=24", "tests=8"], "prior": ["images=16"], "image": ["images=16"], "unet": ["clips=8"],
         "between": ["clips=8"], "upscale": ["clips=4"]},
    ),
    "cogvideo": (
        [*SMALL, *CODED, *(f"{part}.{size}" for part in ("image", "keyframes", "between") for size in
                           ("codes=16", "places=16", "width=16", "heads=2", "layers=1"))],
        {"autoencoder": ["discriminator_width=4"], "image": ["images=8", "clips=2"], "keyframes": ["clips=8"],
         "between": ["clips=8"]},
    ),
}  # fmt: skip


def test_words_are_read_with_and_without_spaces():
    english, chinese = Words(WordsConfig(("a", "red", "ring"), 4)), Words(WordsConfig(("一个", "红色", "红", "圆环"), 4))
    assert english.encode(["A red ring.", ""]).tolist() == [[1, 2, 3, 0], [0, 0, 0, 0]]
    assert english.encode(["a “red” ring!"]).tolist() == [[1, 2, 3, 0]]
    assert chinese.encode(["一个红色圆环"]).tolist() == chinese.encode(["一个、红色圆环！"]).tolist() == [[1, 2, 4, 0]]
    for model, unknown in ((english, "a red moon"), (chinese, "一个月亮")):
        with pytest.raises(minit2v.errors.UserError, match="does not know"):
            model.encode([unknown])


def test_a_token_is_drawn_from_the_largest_logits_by_its_own_generator():
    logits = torch.randn(1, 30).repeat(4000, 1)
    generators = [torch.Generator().manual_seed(i) for i in range(4000)]
    drawn = draw(logits, generators, top_k=3)
    assert set(drawn.tolist()) == set(logits[0].topk(3).indices.tolist())
    share = torch.bincount(drawn, minlength=30) / 4000
    wanted = torch.zeros(30).index_copy(0, logits[0].topk(3).indices, logits[0].topk(3).values.softmax(0))
    assert (share - wanted).abs().max() < 0.03
    again = draw(logits[7:9], [torch.Generator().manual_seed(i) for i in (7, 8)], top_k=3)
    assert torch.equal(again, drawn[7:9])


def run(line):
    assert main(line) == 0


@pytest.fixture(scope="module", params=MODELS)
def trained(request, tmp_path_factory):
    """(name of a preset, folder of a small model of it, trained for two steps)."""
    sizes, parts = MODELS[request.param]
    folder = tmp_path_factory.mktemp(request.param) / "model"
    for part, settings in parts.items():
        chosen = [word for setting in (*sizes, *settings) for word in ("--set", setting)]
        run(["train", part, "--preset", request.param, "--out", str(folder), "--steps", "2", "--batch", "2", *chosen])
    return request.param, folder


PROMPT = "a small red circle moves left"


def test_one_seed_is_one_clip_whatever_torch_s_defaults(trained):
    expected = minit2v.load(trained[1], device="cpu")(PROMPT, seed=3).pixels
    ways = {"interpolated": (expected, 1), "continued": (expected, 2), "enlarged": (expected,)}
    able = lambda pipe: [pipe(PROMPT, seed=3).pixels,
                         *(getattr(pipe, way)(*given) for way, given in ways.items() if hasattr(pipe, way))]  # fmt: skip
    usual = able(minit2v.load(trained[1], device="cpu"))
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        found = able(minit2v.load(trained[1], device="cpu"))
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert all((one == other).all() for one, other in zip(usual, found, strict=True))


def test_numbers_that_are_not_finite_become_a_line_and_no_clip(trained):
    """Whichever network they come from, of those that a clip passes through."""
    pipe = minit2v.load(trained[1], device="cpu")
    passed = set(pipe.networks) - ({"autoencoder"} if "decoder" in pipe.networks else set())
    for name in passed:
        pipe, broken = minit2v.load(trained[1], device="cpu"), False
        for parameter in pipe.networks[name].parameters():
            parameter.data.fill_(torch.nan)
            broken = True
        if broken:  # the words of CogVideo are a table of numbers
            with pytest.raises(minit2v.errors.UserError, match="expected finite numbers"):
                pipe(PROMPT)


def test_the_ordinary_commands(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, model = trained
    shutil.copytree(model, "model")
    run(["sample", PROMPT, "--model", "model", "--out", "clip.webp", "--seed", "3"])  # webp keeps every pixel
    if name in ("nuwa", "cogvideo"):  # write tokens, and have no UNet
        for options in (["--sampler", "dpm++"], ["--eta", "0.5"], ["--compile"]):
            assert main(["sample", PROMPT, "--model", "model", "--out", "no.webp", *options]) == 2
    both = minit2v.load("model")([PROMPT, "a large blue ring moves up"], seed=2)
    alone = minit2v.load("model")("a large blue ring moves up", seed=3)
    assert (both[1].pixels == alone.pixels).all() and len(Clip.load("clip.webp")) == len(alone)
    clip, length = Clip.load("clip.webp"), len(alone)
    ways = {"makeavideo": (["--between", "1"], ["--after", "5"]), "nuwa": (["--after", "3"],)}.get(name, ())
    for way, n in ways:
        run(["extend", "clip.webp", "--model", "model", way, n, "--out", "more.webp"])
        more = Clip.load("more.webp")
        kept = more.pixels[::2] if way == "--between" else more.pixels[:length]
        assert (kept == clip.pixels).all()
        assert more.fps == (2 if way == "--between" else 1) * clip.fps
        assert len(more) == (2 * length - 1 if way == "--between" else length + int(n))
    if name == "makeavideo":
        run(["upscale", "clip.webp", "--model", "model", "--out", "large.webp"])
        assert Clip.load("large.webp").pixels.shape == (length, 32, 32, 3)
    else:
        assert main(["upscale", "clip.webp", "--model", "model", "--out", "no.webp"]) == 2
    for line in (["--between", "2"], [], ["--after", "1", "--between", "1"], ["--after", "0"]):
        assert main(["extend", "clip.webp", "--model", "model", "--out", "no.webp", *line]) == 2
    assert not Path("no.webp").exists()
