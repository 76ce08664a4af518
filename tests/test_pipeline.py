"""TextToVideo with stand-ins for the networks: seeds, batches, guidance, bad input; loading."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import minit2v
from minit2v.diffusion.samplers import SAMPLERS, guided
from minit2v.errors import UserError
from minit2v.presets import AutoencoderConfig, DiffusionConfig, ModelScopePreset, TextConfig, UNetConfig, VisionConfig
from minit2v.systems.modelscope import ModelScopeT2V
from minit2v.video import Clip

PRESET = ModelScopePreset("tiny", frames=3, height=16, width=24, steps=5, guidance=3.0, fps=8,
                autoencoder=AutoencoderConfig(multipliers=(1, 2, 4), scale_factor=0.5))
SHAPE = (1, 4, 3, 4, 6)  # latents of one clip


class Text(nn.Module):
    """A prompt is as many tokens as it has letters a; what was encoded is kept in `asked`."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def encode(self, prompts):
        self.asked.append(prompts)
        return torch.tensor([[[prompt.count("a"), len(prompt)]] for prompt in prompts], dtype=torch.float32)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.1))
        self.calls = []

    def forward(self, x, t, context):
        self.calls.append((tuple(x.shape), x.dtype, t.tolist(), torch.is_inference_mode_enabled()))
        return torch.tanh(x + self.weight * context.sum((1, 2)).reshape(-1, 1, 1, 1, 1))


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.sizes = []

    def decode(self, latents):
        self.sizes.append(len(latents))
        return nn.functional.interpolate(latents[:, :3], scale_factor=4)


def pipeline(preset=PRESET, **options):
    return ModelScopeT2V(preset, Text(), Net(), Autoencoder(), **options)


def test_one_prompt_gives_a_clip_and_a_list_a_list():
    pipe = pipeline()
    clip, clips = pipe("a ring"), pipe(["a ring", "a cross"])
    assert isinstance(clip, Clip) and [type(c) for c in clips] == [Clip, Clip]
    assert clip.pixels.shape == (3, 16, 24, 3) and clip.pixels.dtype == np.uint8 and clip.fps == 8
    assert pipe("a ring", frames=1, height=8, width=4).pixels.shape == (1, 8, 4, 3)


@pytest.mark.parametrize("sampler, eta", [("ddim", 0.0), ("ddim", 1.0), ("ddpm", 0.0), ("dpm++", 0.0)])
def test_a_clip_depends_on_its_seed_and_prompt_only(sampler, eta):
    pipe, options = pipeline(), dict(sampler=sampler, eta=eta)
    pair = pipe(["a ring", "a cat sat"], seed=7, **options)
    assert (pair[0].pixels == pipe("a ring", seed=7, **options).pixels).all()
    assert (pair[1].pixels == pipe("a cat sat", seed=8, **options).pixels).all()
    assert (pair[0].pixels != pipe("a ring", seed=8, **options).pixels).any()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    pipe("a ring", **options)
    assert torch.equal(before, torch.get_rng_state())


def test_numbers_may_be_numpy_s():
    pipe, plain = pipeline(), dict(seed=3, frames=2, height=16, steps=4, guidance=2.0, eta=0.5)
    own = {name: np.array(value)[()] for name, value in plain.items()} | {"eta": np.float32(0.5)}
    assert all(isinstance(value, np.generic) for value in own.values())
    assert (pipe("a ring", **own).pixels == pipe("a ring", **plain).pixels).all()


def test_it_is_the_sampler_on_the_seeds_noise_with_guidance():
    pipe = pipeline()
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(4))
    context, negative = pipe.text.encode(["a ring"]), pipe.text.encode(["a saw"])
    model = guided(pipe.unet, context, negative, 3.0)
    expected = list(SAMPLERS["ddim"](model, noise, pipe.diffusion, 5))
    steps = list(pipe.stream("a ring", seed=4, negative="a saw"))
    assert [step.t for step in steps] == [801, 601, 401, 201, 1]
    for ours, theirs in zip(steps, expected):
        for name in ("x", "eps", "x0"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))
    from_noise = pipe("a ring", noise=noise, negative="a saw")
    assert (from_noise.pixels == pipe.decode(expected[-1].x)[0]).all()
    latents = expected[-1].x / 0.5
    pixels = (pipe.autoencoder.decode(latents[0].transpose(0, 1)) * 0.5 + 0.5).clamp(0, 1) * 255
    assert (from_noise.pixels == np.floor(pixels.permute(0, 2, 3, 1).numpy())).all()  # truncated, not rounded


def test_frames_that_lie_otherwise_in_memory_are_encoded_as_they_are():
    pipe, pixels = pipeline(), np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16, 3), dtype=np.uint8)
    pipe.autoencoder.encode = lambda frames: nn.functional.avg_pool2d(frames, 4)
    assert torch.equal(pipe.encode(pixels[:, ::-1]), pipe.encode(pixels[:, ::-1].copy()))


def test_text_is_encoded_once_and_guidance_one_needs_no_negative():
    pipe = pipeline()
    pipe(["a ring", "a cross"])
    assert pipe.text.asked == [["a ring", "a cross"], [""]]
    both_twice = (4, *SHAPE[1:])
    expected = [(both_twice, torch.float32, [t] * 4) for t in (801, 601, 401, 201, 1)]
    assert [call[:3] for call in pipe.unet.calls] == expected
    pipe = pipeline()
    pipe("a ring", guidance=1.0)
    assert pipe.text.asked == [["a ring"]] and all(call[0] == SHAPE for call in pipe.unet.calls)
    one_by_one = pipeline(batched=False)
    assert (one_by_one("a ring").pixels == pipeline()("a ring").pixels).all()
    assert len(one_by_one.unet.calls) == 10 and all(call[0] == SHAPE for call in one_by_one.unet.calls)


def test_a_model_may_have_a_negative_prompt_of_its_own():
    pipe = pipeline(replace(PRESET, negative="a saw"))
    pipe("a ring")
    pipe("a ring", negative="")
    assert pipe.text.asked == [["a ring"], ["a saw"], ["a ring"], [""]]


def test_streaming_is_lazy_and_leaves_inference_mode():
    pipe = pipeline()
    steps = pipe.stream("a ring")
    assert pipe.unet.calls == []
    next(steps)
    assert len(pipe.unet.calls) == 1 and pipe.unet.calls[0][3]
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()


def test_callback_and_progress(capsys):
    seen = []
    pipeline()("a ring", steps=4, callback=lambda step: seen.append(step.index), progress=True)
    assert seen == [0, 1, 2, 3]
    assert "4/4" in capsys.readouterr().err


def test_frames_are_decoded_in_chunks_with_the_same_result():
    pipe = pipeline()
    latents = torch.randn(2, *SHAPE[1:])
    whole = pipe.decode(latents, chunk=100)
    assert (pipe.decode(latents, chunk=4) == whole).all()
    assert pipe.autoencoder.sizes == [6, 4, 2]
    with pytest.raises(UserError, match="float32"):
        pipe.decode(latents * math.nan)


BAD = {
    "prompt": [dict(prompt=text) for text in ("", " \n", "...", [], ["a ring", ""], [3])],
    "frames": [dict(frames=0), dict(frames=-1), dict(frames=257), dict(frames=1.5), dict(frames="many")],
    "height": [dict(height=10), dict(height=0), dict(height=10**9)],
    "width": [dict(width=-4), dict(width=2)],
    "steps": [dict(steps=0), dict(steps=1001), dict(steps=-5), dict(steps=math.nan)],
    "guidance": [dict(guidance=math.nan), dict(guidance=math.inf), dict(guidance="9")],
    "eta": [dict(eta=-0.1), dict(eta=1.1), dict(eta=math.nan), dict(eta=0.5, sampler="ddpm")],
    "sampler": [dict(sampler="euler"), dict(sampler=None)],
    "seed": [dict(seed=-1), dict(seed=2**63), dict(seed=0.5), dict(seed=None)],
    "negative": [dict(negative=3)],
    "noise": [dict(noise=torch.zeros(SHAPE[1:])), dict(noise=torch.zeros(SHAPE), frames=4), dict(noise=3),
              dict(noise=np.zeros(SHAPE))],
}


@pytest.mark.parametrize("name, bad", [(name, bad) for name, cases in BAD.items() for bad in cases], ids=repr)
def test_bad_input_is_told_in_one_line_before_any_work(name, bad):
    pipe = pipeline()
    settings = {"prompt": "a ring", **bad}
    for call in (pipe, pipe.stream):
        with pytest.raises(UserError, match=f"^{name}: expected") as error:
            call(**settings)
        assert "\n" not in str(error.value)
    assert pipe.text.asked == []


def test_bad_input_names_the_remedy():
    for bad, hint in (dict(sampler="euler"), ", ".join(SAMPLERS)), (dict(height=10), "try 12"):
        with pytest.raises(UserError, match=hint.replace("+", r"\+")):
            pipeline()("a ring", **bad)
    with pytest.raises(TypeError, match="stepz"):
        pipeline()("a ring", stepz=3)


TINY = ModelScopePreset(
    "tiny", frames=2, height=16, width=16, steps=2, guidance=2.0,
    unet=UNetConfig(channels=(16, 32), attention=(True, True), layers_per_level=1, head_dim=8,
                    first_temporal_heads=2, context_dim=16, norm_groups=8),
    autoencoder=AutoencoderConfig(channels=8, multipliers=(1, 2), layers_per_level=1, norm_groups=8,
                                  mid_attention=False),
    text=TextConfig(context_length=8, width=16, heads=2, layers=2, embed_dim=16, words=("a", "red", "ring"),
                    vision=VisionConfig(size=16, patch=8, width=16, layers=1, heads=2)),
    diffusion=DiffusionConfig(prediction="v", zero_terminal_snr=True, snr_shift=2.0, spacing="trailing"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder of tiny random networks, and the pipeline it was saved from."""
    from minit2v.checkpoints.folder import save_model
    from minit2v.networks.autoencoder import VQGAN
    from minit2v.networks.text import TextEncoder
    from minit2v.networks.unet import UNet

    torch.manual_seed(0)
    parts = dict(text=TextEncoder(TINY.text), unet=UNet(TINY.unet), autoencoder=VQGAN(TINY.autoencoder))
    for parameter in parts["unet"].parameters():  # some are zero at first, which would hide the rest
        torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, TINY, **parts)
    return folder, ModelScopeT2V(TINY, **parts)


def test_a_saved_model_loads_and_samples_the_same(model):
    folder, saved = model
    loaded = minit2v.load(folder, device="cpu")
    assert loaded.preset == TINY and not loaded.unet.training
    clip = loaded("a red ring")
    assert (clip.pixels == saved("a red ring").pixels).all() and clip.pixels.shape == (2, 16, 16, 3)
    one, other = (list(loaded.stream(prompt))[-1].x for prompt in ("a red ring", "a ring"))
    assert (one - other).abs().max() > 1e-4
    with pytest.raises(UserError, match="purple"):
        loaded("a purple ring")


def test_dtype_is_that_of_the_networks_while_latents_stay_float32(model):
    folder, saved = model
    half = minit2v.load(folder, device="cpu", dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    full, rough = (list(pipe.stream("a red ring"))[-1].x for pipe in (saved, half))
    assert rough.dtype == torch.float32
    assert 0 < (full - rough).norm() / full.norm() < 0.2  # the same noise, a coarser network


def test_load_refuses_what_it_does_not_know(model, tmp_path):
    folder, _ = model
    for options, hint in (dict(device="tpu9"), "device"), (dict(dtype="int8"), "float32"):
        with pytest.raises(UserError, match=hint) as error:
            minit2v.load(folder, **options)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError):
        minit2v.load(tmp_path)
    with pytest.raises(UserError, match="unknown model"):
        minit2v.load("no-such-model")


def test_starts_from_a_clip(model):
    """The less strength, the nearer to the given clip; a picture is a clip that stands still."""
    pipe = model[1]
    given = np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
    kept = pipe.decode(pipe.encode(given[None]))[0].astype(int)
    away = []
    for strength in (0.1, 0.5, 1.0):
        made = pipe("a red ring", init=given, strength=strength, steps=10, guidance=1.0)
        assert made.pixels.shape == given.shape
        away.append(np.abs(made.pixels - kept).mean())
    assert away[0] < away[1] < away[2]
    still = list(pipe.stream("a red ring", init=given[:1], frames=3, strength=0.2, steps=10))
    assert [step.index for step in still] == [8, 9] and still[-1].x.shape[2] == 3
    for sampler in ("ddim", "ddpm", "dpm++"):
        whole = list(pipe.stream("a red ring", steps=5, sampler=sampler, frames=4, height=16, width=16))
        assert [s.t for s in pipe.stream("a red ring", init=given, strength=0.6, steps=5, sampler=sampler)] == [
            s.t for s in whole[2:]]


def test_the_bar_counts_the_steps_that_are_taken(model, capsys):
    model[1]("a red ring", init=np.zeros((2, 16, 16, 3), np.uint8), strength=0.6, steps=10, progress=True)
    assert "6/6" in capsys.readouterr().err


@pytest.mark.parametrize("settings, message", [
    ({"init": "movie.mp4"}, "init: expected a clip, uint8"),
    ({"init": np.zeros((4, 16, 16, 3))}, "init: expected a clip, uint8"),
    ({"init": np.zeros((4, 1, 16, 3), np.uint8)}, "init: expected 2 pixels a side"),
    ({"init": np.zeros((4, 16, 16, 3), np.uint8), "frames": 5}, "frames: expected at most 4"),
    ({"init": np.zeros((4, 16, 16, 3), np.uint8), "height": 15}, "height: expected a multiple of 2"),
    ({"init": np.zeros((4, 16, 16, 3), np.uint8), "strength": 1.5}, "strength: expected a number from 0 to 1"),
])  # fmt: skip
def test_refuses_other_clips(model, settings, message):
    with pytest.raises(UserError, match=message):
        model[1]("a red ring", **settings)


def test_an_init_is_cut_and_fitted_and_keeps_its_frame_rate(model):
    pipe, pixels = model[1], np.random.default_rng(0).integers(0, 255, (300, 17, 20, 3), dtype=np.uint8)
    with pytest.warns(UserWarning) as lines:
        made = pipe("a red ring", init=Clip(pixels, 30), steps=1)
    assert made.pixels.shape == (256, 16, 20, 3) and made.fps == 30
    assert [str(line.message) for line in lines] == [
        "init: takes the first 256 of its 300 frames", "init: fits its 20x17 pixels to 20x16"]  # fmt: skip
    with pytest.warns(UserWarning):
        small = pipe("a red ring", init=Clip(pixels, 30), frames=2, height=8, width=8, steps=1, fps=10)
    assert small.pixels.shape == (2, 8, 8, 3) and small.fps == 10
    assert pipe("a red ring", init=pixels[:1, :16], steps=1).fps == TINY.fps  # a picture has no frame rate


def test_a_setting_without_effect_is_told(model):
    with pytest.warns(UserWarning, match="negative: 'a ring' has no effect at guidance 1"):
        model[1]("a red ring", negative="a ring", guidance=1.0, steps=1)
    with pytest.warns(UserWarning, match="window: 2 has no effect on 2 frames"):
        model[1]("a red ring", window=2, steps=1)
    with pytest.warns(UserWarning, match="strength: 0.5 has no effect without init"):
        model[1]("a red ring", strength=0.5, steps=1)


def test_decoded_frames_are_checked_too(model):
    """A decoder that overflows gives a line, as latents do, and no black clip."""
    pipe = minit2v.load(model[0], device="cpu")
    pipe.autoencoder.decoder.conv_out.weight.data.fill_(math.inf)
    with pytest.raises(UserError, match="frames: expected finite numbers.*dtype float32"):
        pipe("a red ring")
    pipe.autoencoder.encoder.conv_out.weight.data.fill_(math.nan)
    with pytest.raises(UserError, match="latents: expected finite numbers"):
        pipe("a red ring", init=np.zeros((2, 16, 16, 3), np.uint8))


def test_a_seed_gives_one_clip_whatever_torch_s_defaults(model):
    expected, options = model[1]("a red ring", seed=3, sampler="ddpm"), dict(seed=3, sampler="ddpm")
    try:
        torch.set_default_dtype(torch.float64)
        assert (minit2v.load(model[0], device="cpu")("a red ring", **options).pixels == expected.pixels).all()
        torch.set_default_device("meta")
        loaded = minit2v.load(model[0], device="cpu")
        assert (loaded("a red ring", **options).pixels == expected.pixels).all()
        windowed = loaded("a red ring", frames=4, window=2, init=np.zeros((4, 16, 16, 3), np.uint8))
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    again = model[1]("a red ring", frames=4, window=2, init=np.zeros((4, 16, 16, 3), np.uint8))
    assert (windowed.pixels == again.pixels).all()
