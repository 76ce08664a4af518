"""Recordings: what is kept of a run and how exactly, attention, 3 MB at every size, other systems, bad files."""

import io
import json
import math
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image

import minit2v
from minit2v import presets
from minit2v.datasets.moving_things import MovingThings
from minit2v.diffusion.samplers import Step
from minit2v.errors import UserError
from minit2v.networks import blocks
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.text import TextEncoder, Tokenizer
from minit2v.networks.unet import UNet
from minit2v.presets import (
    AutoencoderConfig,
    DiffusionConfig,
    ModelScopePreset,
    Preset,
    TextConfig,
    UNetConfig,
    VisionConfig,
)
from minit2v.recording import recorder as room
from minit2v.recording.attention_maps import AttentionMaps, attention_of, words
from minit2v.recording.recorder import BUDGET, Recorder, plan, record, recorded, strip
from minit2v.recording.recording import ATTENTION, LARGEST, LATENTS, Recording, packed, unpacked
from minit2v.systems.modelscope import ModelScopeT2V
from minit2v.systems.pipeline import TextToVideo
from minit2v.systems.settings import SamplingSettings, checked, latent_shape

TINY = ModelScopePreset(
    "tiny", frames=3, height=16, width=24, steps=4, guidance=2.0,
    unet=UNetConfig(channels=(16, 32), attention=(False, True), layers_per_level=1, head_dim=8,
                    first_temporal_heads=2, context_dim=16, norm_groups=8),
    autoencoder=AutoencoderConfig(channels=8, multipliers=(1, 2), layers_per_level=1, norm_groups=8,
                                  mid_attention=False),
    text=TextConfig(context_length=8, width=16, heads=2, layers=2, embed_dim=16, words=("a", "red", "ring", "moves"),
                    vision=VisionConfig(size=16, patch=8, width=16, layers=1, heads=2)),
    diffusion=DiffusionConfig(prediction="v", zero_terminal_snr=True, spacing="trailing"),
)  # fmt: skip
SHAPE = (1, 4, 3, 8, 12)  # latents of one clip of it; its attention is at half the height and width
PROMPT = "a red ring"


def pipeline(preset=TINY, **options):
    """Tiny random networks; no parameter is zero, which would hide whole branches."""
    torch.manual_seed(0)
    unet = UNet(preset.unet)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return ModelScopeT2V(preset, TextEncoder(preset.text), unet, VQGAN(preset.autoencoder), **options)


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


@pytest.fixture(scope="module")
def mini():
    return minit2v.load("mini", device="cpu")


# what is kept


def test_numbers_are_right_within_half_of_a_255th_of_their_steps_range():
    values = np.random.default_rng(0).normal(size=(5, 2, 3)) * np.array([1e-3, 1, 50, 0, 1])[:, None, None] + 4
    numbers, ranges = packed(values)
    assert numbers.dtype == np.uint8 and ranges.shape == (5, 2)
    error = np.abs(unpacked(numbers, ranges) - values).max((1, 2))
    assert (error <= np.ptp(values, (1, 2)) / 510 + 1e-5).all()


def test_a_short_run_is_kept_whole(pipe, tmp_path):
    """All of a run at the size of its model, also after writing and reading."""
    steps = list(pipe.stream(PROMPT, seed=3))
    recording = recorded(pipe, PROMPT, seed=3)
    loaded = Recording.load(recording.save(tmp_path / "recording.npz"))
    for found in (recording, loaded):
        assert (found.prompt, found.model, found.fps) == (PROMPT, "tiny", 8)
        assert found.t.tolist() == [step.t for step in steps] and found.steps.tolist() == [0, 1, 2, 3]
        assert found.frames.tolist() == [0, 1, 2] and found.preview.shape == (4, 3, 16, 24, 3)
        np.testing.assert_allclose(found.alpha_bar, pipe.diffusion.alpha_bar[found.t], atol=1e-7)
        for name in LATENTS:
            whole = torch.cat([getattr(step, name) for step in steps]).transpose(1, 2).numpy()
            error = np.abs(found.latents(name) - whole).max((1, 2, 3, 4))
            assert (error <= np.ptp(whole, (1, 2, 3, 4)) / 510 + 1e-5).all()
            np.testing.assert_allclose(found.norms[name], (whole**2).mean((1, 2, 3, 4)) ** 0.5, rtol=1e-5)
    expected = {"frames": 3, "height": 16, "width": 24, "steps": 4, "guidance": 2.0, "negative": "", "seed": 3,
                "fps": 8, "sampler": "ddim", "eta": 0.0, "window": 0, "init": False, "noise": False, "strength": 0.7}
    assert loaded.settings == expected
    assert (recording.preview == np.stack([pipe.decode(step.x0)[0] for step in steps])).all()
    for name in ("x", "eps", "x0", "cross", "temporal", "timesteps", "frames"):
        assert (getattr(loaded, name) == getattr(recording, name)).all()
    assert loaded.words == recording.words == ["a", "red", "ring"]


def test_previews_come_back_nearly_as_they_were(pipe, tmp_path):
    pictures = MovingThings("val", size=64)[0][0][None]
    recording = recorded(pipe, PROMPT, frames=16, steps=1)
    back = Recording.load(replace(recording, preview=pictures).save(tmp_path / "recording.npz")).preview
    error = np.abs(back.astype(int) - pictures)
    assert back.shape == pictures.shape and error.mean() < 1 and error.max() < 40


def test_of_a_long_run_a_part_is_kept(pipe, monkeypatch):
    """The numbers that are kept are those of the whole recording at the same steps, frames, rows and columns."""
    options = dict(frames=12, height=72, width=40, steps=9)
    whole = recorded(pipe, PROMPT, **options)
    monkeypatch.setattr(room, "BUDGET", 250_000)
    monkeypatch.setattr(room, "WORDS", 2)
    part = recorded(pipe, PROMPT, **options)
    assert part.steps.tolist() == [0, 3, 5, 8] and part.frames.tolist() == [0, 2, 4, 6, 8, 10]
    assert part.timesteps.tolist() == whole.timesteps.tolist() and part.fps == whole.fps / 2
    for name in LATENTS:
        expected = whole.latents(name)[part.steps][:, ::2, :, ::2, ::2]
        assert np.abs(part.latents(name) - expected).max() <= np.diff(whole.ranges[name][part.steps]).max() / 255
        np.testing.assert_array_equal(part.norms[name], whole.norms[name])
    assert (part.preview == whole.preview[part.steps][:, ::2]).all() and part.preview.shape[2:4] == (64, 36)
    shares = whole.attention("cross")[part.steps]
    most = sorted(shares[:, :, ::2, ::2, ::2].mean((0, 2, 3, 4)).argsort()[-2:])
    assert part.words == [whole.words[i] for i in most]
    assert np.abs(part.attention("cross") - shares[:, most, ::2, ::2, ::2]).max() < 0.01
    assert np.abs(part.attention("temporal") - whole.attention("temporal")[part.steps][:, ::2, ::2]).max() < 0.01


def test_seeds_prompts_and_given_clips(pipe):
    """Recordings of a list are those of its prompts alone; a run that starts from a clip has fewer steps."""
    settings = checked([PROMPT, "a ring moves"], SamplingSettings(seed=5), TINY)
    recorder = Recorder(pipe, [PROMPT, "a ring moves"], settings)
    assert len(list(recorder.follow(pipe.stream([PROMPT, "a ring moves"], seed=5)))) == 4
    separate = recorded(pipe, PROMPT, seed=5), recorded(pipe, "a ring moves", seed=6)
    for together, alone in zip(recorder.recordings(), separate):
        assert together.settings == alone.settings and together.words == alone.words
        for name in LATENTS:
            np.testing.assert_allclose(together.latents(name), alone.latents(name), atol=0.05)
        for name in ATTENTION:
            np.testing.assert_allclose(together.attention(name), alone.attention(name), atol=0.005)
    still = np.zeros((1, 16, 24, 3), np.uint8)
    late = recorded(pipe, PROMPT, init=still, strength=0.5)
    assert late.steps.tolist() == [0, 1] and late.timesteps.tolist() == [499, 249]
    assert late.settings["init"] is True and json.dumps(recorded(pipe, PROMPT, frames=np.int64(3)).settings)
    with pytest.raises(UserError, match="prompt: expected"):
        recorded(pipe, [PROMPT])
    with pytest.raises(UserError, match="frames: expected"):
        recorded(pipe, PROMPT, frames=0)


# attention


def by_loops(unet, x, t, context):
    """The maps of one call, one head, frame and cell at a time: cross (n, f, h, w), temporal (f, f)."""
    seen = {}
    _, cross, temporal = attention_of(unet)
    keep = lambda layer, args, _: seen.update({layer: args})
    hooks = [layer.register_forward_hook(keep) for layer in cross + temporal]
    with torch.no_grad():
        unet(x, torch.tensor([t]), context)
    for hook in hooks:
        hook.remove()
    f, h, _ = x.shape[2], *(side // 2 ** unet.config.attention.index(True) for side in x.shape[3:])

    def attention(layer, rows, columns):
        q, k = layer.to_q(rows), layer.to_k(columns)
        heads = [torch.softmax(a @ b.T / a.shape[-1] ** 0.5, dim=-1) for a, b in
                 zip(q.split(8, dim=-1), k.split(8, dim=-1))]  # fmt: skip
        return sum(heads) / len(heads)

    maps = []
    with torch.no_grad():
        for layer in cross:
            cells, tokens = seen[layer]
            found = torch.stack([attention(layer, cells[i], tokens[0]) for i in range(f)])  # f (h w) n
            maps.append(rearrange(found, "f (h w) n -> n f h w", h=h))
        frames = [torch.stack([attention(layer, column, column) for column in seen[layer][0]]) for layer in temporal]
    return sum(maps) / len(maps), sum(found.mean(0) for found in frames) / len(frames)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("guidance, attention", [(1.0, (False, True)), (3.0, (False, True)), (3.0, (True, True))])
def test_maps_are_those_of_the_prompt(batched, guidance, attention):
    """Against loops; under guidance the half that is given the prompt, however the halves are run."""
    pipe = pipeline(replace(TINY, unet=replace(TINY.unet, attention=attention)), batched=batched)
    for name, parameter in pipe.unet.named_parameters():
        if "to_q" in name or "to_k" in name:  # sharp maps
            torch.nn.init.normal_(parameter, std=4.0)
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    recording = recorded(pipe, PROMPT, noise=noise, guidance=guidance, negative="moves")
    cross, temporal = by_loops(pipe.unet, noise, 999, pipe.text.encode([PROMPT]))
    other, _ = by_loops(pipe.unet, noise, 999, pipe.text.encode(["moves"]))
    large = cross[1:4]  # the words, without start and padding
    while large.shape[-1] < SHAPE[-1]:
        large = large.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert recording.words == ["a", "red", "ring"] and large.std() > 0.05 and (other - cross).abs().max() > 0.1
    assert np.abs(recording.attention("cross")[0] - large.numpy()).max() < 1 / 255
    assert np.abs(recording.attention("temporal")[0] - temporal.numpy()).max() < 1 / 255
    np.testing.assert_allclose(recording.attention("temporal").sum(-1), 1, atol=0.01)


def test_recording_changes_nothing(pipe, monkeypatch):
    """Equal latents with and without; no map is computed unasked, and none stays in the network."""
    layers = [layer for layer in pipe.unet.modules() if isinstance(layer, blocks.Attention)]
    counts = []
    for follow in (False, True, False):
        steps, asked = pipe.stream(PROMPT), []
        library = blocks.attention_map
        monkeypatch.setattr(blocks, "attention_map", lambda q, k, made=library: asked.append(1) or made(q, k))
        if follow:
            steps = Recorder(pipe, [PROMPT], checked([PROMPT], SamplingSettings(), TINY)).follow(steps)
        counts.append((len(asked), *[step.x for step in steps]))
        monkeypatch.undo()
        counts[-1] = (len(asked), *counts[-1][1:])
    assert counts[0][0] == counts[2][0] and counts[1][0] == counts[0][0] + 4 * (3 + 3)  # a step: 3 blocks, 2 maps
    assert all(torch.equal(a, b) for a, b in zip(counts[0][1:], counts[1][1:]))
    assert all(layer.keep == 0 and layer.map is None for layer in layers)
    stopped = Recorder(pipe, [PROMPT], checked([PROMPT], SamplingSettings(), TINY)).follow(pipe.stream(PROMPT))
    next(stopped)
    assert any(layer.keep for layer in layers)
    stopped.close()
    assert all(layer.keep == 0 and layer.map is None for layer in layers)


def test_recordings_and_samples_in_threads_are_those_of_one_after_the_other(pipe):
    """Other threads sample clips of other lengths meanwhile, with the same model."""
    alone = recorded(pipe, PROMPT, steps=3)
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(pipe, "a ring moves", steps=3, frames=1 + i % 3) for i in range(6)]
        found = [pool.submit(recorded, pipe, PROMPT, steps=3) for _ in range(4)]
        for one in found:
            for name in ("x", "cross", "temporal"):
                assert np.array_equal(getattr(one.result(), name), getattr(alone, name)), name
        assert all(len(other.result()) == 1 + i % 3 for i, other in enumerate(others))


def test_only_steps_that_are_kept_are_asked(pipe, monkeypatch):
    monkeypatch.setattr(room, "BUDGET", 20_000)
    asked = []
    monkeypatch.setattr(AttentionMaps, "ask", lambda maps, wanted: asked.append(wanted))
    monkeypatch.setattr(AttentionMaps, "take", lambda maps: None)
    recording = recorded(pipe, PROMPT, steps=9)
    assert 1 < len(recording.steps) < 9
    assert [i for i, wanted in enumerate(asked) if wanted] == recording.steps.tolist()


class Foreign(torch.nn.Module):
    """A network that is not the library's."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, t, context):
        return x * self.weight


class Deaf(blocks.Attention):
    """A class of somebody's own that leaves no map."""

    def forward(self, x, context=None):
        self.keep = 0
        return super().forward(x, context)


def test_runs_without_maps(pipe, tmp_path, monkeypatch):
    """With windows, without a prompt in the network, with foreign networks and classes: the rest is kept."""
    recordings = [recorded(pipe, PROMPT, frames=5, window=3), recorded(pipe, PROMPT, guidance=0.0)]
    recordings.append(recorded(ModelScopeT2V(TINY, pipe.text, Foreign(), pipe.autoencoder), PROMPT))
    monkeypatch.setattr(blocks, "Attention", Deaf)
    recordings.append(recorded(pipeline(), PROMPT))
    monkeypatch.undo()
    for recording in recordings:
        loaded = Recording.load(recording.save(tmp_path / "recording.npz"))
        assert loaded.words == [] and loaded.cross is None and loaded.temporal is None
        with pytest.raises(UserError, match="no cross"):
            loaded.attention("cross")
        assert loaded.latents("x0").shape[0] == 4
    assert recorded(pipe, PROMPT, window=3).words  # a window that holds the whole clip
    assert recorded(pipe, PROMPT, height=14, width=10).cross.shape == (4, 3, 3, 7, 5)  # maps of 4 x 3 cells


def test_words_of_a_prompt():
    """Byte pairs of a word are joined; what a prompt is cut by is left out; a compact vocabulary has its own ids."""
    whole = Tokenizer(12)
    assert words(whole, "An astronaut's thingamabob, 42!")[:2] == [("an", [1]), ("astronaut", [2])]
    found = words(whole, "A red thingamabob moves")
    assert [word for word, _ in found] == ["a", "red", "thingamabob", "moves"]
    assert sum((places for _, places in found), []) == list(range(1, 8)) and len(found[2][1]) == 4
    cut = words(Tokenizer(5), "red thingamabob moves")
    assert cut[0] == ("red", [1]) and cut[1][1] == [2, 3] and "thingamabob".startswith(cut[1][0])
    compact = Tokenizer(8, words=("a", "red", "ring"))
    assert words(compact, "A red, ring.") == [("a", [1]), ("red", [2]), ("ring", [3])]
    chinese = words(Tokenizer(20), "红色 circle")
    assert [word for word, _ in chinese] == ["红色", "circle"]


# other systems


class Fading(TextToVideo):
    """A system of pixels: no autoencoder, no noise schedule, no UNet; its steps have neither eps nor x0."""

    def steps(self, context, unconditional, settings):
        x = torch.zeros(len(context), 3, settings.frames, settings.height, settings.width)
        for i in range(2):  # as many as it likes, whatever the settings say
            x = x + context.mean(dim=(1, 2)).tanh()[:, None, None, None, None] / 4
            yield Step(i, 1 - i, x)


def test_a_system_keeps_what_its_steps_have(pipe, tmp_path):
    preset = Preset("fading", system="fading", frames=3, height=16, width=24, steps=5, guidance=1.0)
    fading = Fading(preset, text=pipe.text)
    steps = list(fading.stream(PROMPT))
    recording = recorded(fading, PROMPT)
    for found in (recording, Recording.load(recording.save(tmp_path / "recording.npz"))):
        assert found.latent_names == ["x"] and found.attention_maps == [] and found.words == []
        assert found.alpha_bar is None and found.timesteps.tolist() == [1, 0] and found.steps.tolist() == [0, 1]
        assert np.abs(found.latents("x")[1] - steps[1].x[0].transpose(0, 1).numpy()).max() < 0.01
        assert np.abs(found.preview[1].astype(int) - fading.decode(steps[1].x)[0]).max() <= 4
        with pytest.raises(UserError, match="no x0: .* it has x"):
            found.latents("x0")


# sizes


class Loud:
    """Attention maps of the longest prompt, as random as they can be."""

    def __init__(self, pipe, prompts, settings, shape):
        n = pipe.preset.text.context_length - 2
        self.words, self.shape = [[f"word{i}" for i in range(n)]] * len(prompts), shape

    def ask(self, wanted):
        pass

    def take(self):
        b, _, f, h, w = self.shape
        return [torch.rand(len(self.words[0]), f, h, w) for _ in range(b)], torch.rand(b, f, f)


class Noisy:
    """A pipeline of a preset whose steps and pictures cannot be compressed."""

    def __init__(self, preset, settings):
        self.preset, self.settings = preset, settings
        self.diffusion = pipeline().diffusion
        self.decoded, self.rng = [], np.random.default_rng(0)

    def count(self, settings):
        return settings.steps

    def decode(self, latents):
        self.decoded.append(latents.shape[2])
        H, W = (side * self.preset.autoencoder.factor for side in latents.shape[-2:])
        side = max(1, max(H, W) // 64)  # of squares of noise that survive the shrinking
        squares = self.rng.integers(0, 2, (1, latents.shape[2], H, W, 3), dtype=np.uint8)[:, :, ::side, ::side] * 255
        return squares.repeat(side, axis=2).repeat(side, axis=3)[:, :, :H, :W]

    def stream(self):
        shape = latent_shape(1, self.settings, self.preset)
        for i in range(self.settings.steps):
            yield Step(i, 999 - i, *(torch.rand(shape) for _ in range(3)))


@pytest.mark.parametrize("name, settings", [
    ("modelscope-1.7b", {}),
    ("modelscope-1.7b", dict(frames=24, height=320, width=576, steps=40)),
    ("modelscope-1.7b", dict(frames=100, height=64, width=72, steps=1000)),
    ("mini", dict(steps=50)),
    ("mini", {}),
], ids=repr)  # fmt: skip
def test_three_megabytes_at_every_size(name, settings, monkeypatch, tmp_path):
    preset = presets.get(name)
    settings = checked(["x" * 3000], SamplingSettings(**settings, negative="\u4e00" * 3000), preset)
    pipe = Noisy(preset, settings)
    monkeypatch.setattr(room, "AttentionMaps", Loud)
    recorder = Recorder(pipe, ["\u4e00" * 3000], settings)
    for _ in recorder.follow(pipe.stream()):
        pass
    recording = recorder.recordings()[0]
    size = recording.save(tmp_path / "recording.npz").stat().st_size
    assert size <= 3_000_000
    assert len(recording.norms["x"]) == settings.steps and recording.steps[[0, -1]].tolist() == [0, settings.steps - 1]
    assert Recording.load(tmp_path / "recording.npz").preview.shape == recording.preview.shape
    if settings.height == 256:  # decoding is slow there
        assert recording.x.shape[1:] == (8, 4, 32, 32) and len(recording.words) == 12 and sum(pipe.decoded) <= 10 * 8
    if settings.steps == 12:  # the mini model's own
        assert recording.x.shape[:2] == recording.preview.shape[:2] == (12, 16) and len(recording.words) == 18


@pytest.mark.parametrize("seed", range(40))
def test_what_is_planned_fits(seed):
    rng = np.random.default_rng(seed)
    steps, f, h, w = (int(2 ** rng.uniform(0, most)) for most in (9.9, 8, 9, 9))
    c, k = int(rng.integers(1, 17)), int(rng.integers(0, 76))
    kept = plan(steps, (c, f, h, w), (8 * h, 8 * w), k)
    frames, rows, columns = len(range(0, f, kept.frame)), len(range(0, h, kept.cell)), len(range(0, w, kept.cell))
    H, W = kept.picture
    size = frames * (3 * c * rows * columns + 3 * H * W + kept.words * rows * columns) + frames**2
    assert len(kept.steps) * size <= BUDGET and max(H, W) <= 64 and kept.steps[0] == 0 and kept.steps[-1] <= steps - 1
    whole = (kept.frame, kept.cell, kept.words, len(kept.steps)) == (1, 1, k, steps)
    assert whole or (frames <= 8 and rows <= 32 and columns <= 32 and kept.words <= 12)
    assert len(kept.steps) == steps or (len(kept.steps) + 1) * size > BUDGET  # as many steps as fit


# files


def test_a_recording_is_files_in_a_folder(pipe, tmp_path):
    (clip,) = record(pipe, [PROMPT], tmp_path / "one")
    assert (clip.pixels == pipe(PROMPT).pixels).all()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["recording.npz", "strip.png"]
    recording = Recording.load(tmp_path / "one" / "recording.npz")
    picture = np.asarray(Image.open(tmp_path / "one" / "strip.png"))
    assert picture.shape == (4 * 16, 3 * 24, 3) and recording.t.tolist() == [999, 749, 499, 249]
    first, last = (pipe.decode(step.x0)[0] for step in list(pipe.stream(PROMPT))[:: 3])
    assert (picture[:16, :24] == first[0]).all() and (picture[-16:, -24:] == last[-1]).all()
    clips = record(pipe, [PROMPT, "a ring"], tmp_path / "two", steps=8, frames=16)
    names = ["recording-1.npz", "recording-2.npz", "strip-1.png", "strip-2.png"]
    assert [len(clip.pixels) for clip in clips] == [16, 16]
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == names
    second = Recording.load(tmp_path / "two" / "recording-2.npz")
    assert second.prompt == "a ring" and second.settings["seed"] == 1 and strip(second).shape == (6 * 16, 8 * 24, 3)


class Unsampled(TextToVideo):
    """A pipeline that must not be asked to sample."""

    def __init__(self):
        pass

    def steps(self, *_):
        raise AssertionError

    def checked(self, prompts, settings):
        return prompts, checked(prompts, SamplingSettings(**settings), TINY)


def test_recording_refuses_a_bad_folder_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "missing" / "steps"):
        with pytest.raises(UserError):
            record(Unsampled(), [PROMPT], folder)
    with pytest.raises(UserError, match="frames: expected"):
        record(Unsampled(), [PROMPT], tmp_path / "new", frames=0)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_denoiser_has_left_the_device_before_the_decoder_enters(pipe, tmp_path, monkeypatch):
    visited = pipeline(offload_device=torch.device("cpu"))
    inside = []

    def watched(self, network):
        class Block:
            def __enter__(_):
                inside.append(type(network))
                assert len(inside) == 1, inside

            def __exit__(_, *error):
                inside.pop()

        return Block()

    monkeypatch.setattr(ModelScopeT2V, "working", watched)
    record(visited, [PROMPT], tmp_path / "steps")
    assert Recording.load(tmp_path / "steps" / "recording.npz").words


def altered(path, **changes):
    """The bytes of the recording file with members replaced: arrays, bytes, or None to leave one out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, value in changes.items():
        name = name.replace("__", ".") + ".npy"
        if value is None:
            del members[name]
        elif isinstance(value, bytes):
            members[name] = value
        else:
            np.save(file := io.BytesIO(), value, allow_pickle=True)
            members[name] = file.getvalue()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


class Trap:
    ran = False

    def __reduce__(self):
        return setattr, (Trap, "ran", True)


def texts_with(path, **changes):
    with np.load(path) as file:
        texts = json.loads(file["texts"].tobytes())
    return np.frombuffer(json.dumps(texts | changes).encode(), np.uint8)


def with_layout(path, **changes):
    with np.load(path) as file:
        layout = json.loads(file["texts"].tobytes())["layout"]
    return texts_with(path, layout=layout | changes)


def picture_of(width, height):
    Image.new("L", (width, height)).save(file := io.BytesIO(), "WEBP")
    return np.frombuffer(file.getvalue(), np.uint8)


def legacy(path):
    """The bytes of a recording as the first files were: they said "flight", and had the shape of their pictures."""
    recording = Recording.load(path)
    tiles = rearrange(recording.preview, "s f H W c -> (s f c) H W")
    columns = math.ceil(math.sqrt(len(tiles)))
    blank = np.zeros((-len(tiles) % columns, *tiles.shape[1:]), np.uint8)
    sheet = rearrange(np.concatenate([tiles, blank]), "(r q) H W -> (r H) (q W)", q=columns)
    Image.fromarray(sheet).save(file := io.BytesIO(), "WEBP", quality=90, method=6)
    texts = texts_with(path, format="minit2v flight 1", pictures=recording.preview.shape, layout=None)
    return altered(path, texts=texts, pictures=np.frombuffer(file.getvalue(), np.uint8))


def test_files_of_the_first_format_are_read(recording_file, tmp_path):
    (tmp_path / "flight.npz").write_bytes(legacy(recording_file))
    old, new = Recording.load(tmp_path / "flight.npz"), Recording.load(recording_file)
    assert np.abs(old.preview.astype(int) - new.preview).mean() < 3  # its pictures have lost a little twice
    assert (old.x == new.x).all() and old.words == new.words


DAMAGE = {
    "empty": (lambda path: b"", ""),
    "text": (lambda path: b"not a recording", ""),
    "a pickle": (lambda path: pickle.dumps(Trap()), ""),
    "an array": (lambda path: np.save(file := io.BytesIO(), np.zeros(3)) or file.getvalue(), ""),
    "truncated": (lambda path: path.read_bytes()[:-200], ""),
    "half": (lambda path: path.read_bytes()[: path.stat().st_size // 2], ""),
    "flipped": (lambda path: (raw := bytearray(path.read_bytes())).__setitem__(slice(900, 960), b"?" * 60) or raw, ""),
    "another archive": (lambda path: altered(path, texts=None), "texts"),
    "a pickled array": (lambda path: altered(path, x=np.array([Trap()], dtype=object)), "pickle"),
    "a pickled extra": (lambda path: altered(path, more=np.array([Trap()], dtype=object)), "pickle"),
    "no latents": (lambda path: altered(path, x=None), "'x'"),
    "latents without numbers": (lambda path: altered(path, ranges__x0=None), "ranges of x0"),
    "no norms": (lambda path: altered(path, norms__eps=None), "norms of eps"),
    "no ranges": (lambda path: altered(path, ranges__cross=None), "ranges of cross"),
    "no pictures": (lambda path: altered(path, pictures=None), "pictures"),
    "wrong dtype": (lambda path: altered(path, x=np.zeros((4, 3, 4, 8, 12))), "x: expected uint8"),
    "wrong axes": (lambda path: altered(path, eps=np.zeros((4, 3, 4, 8), np.uint8)), "eps: expected uint8"),
    "wrong length": (lambda path: altered(path, eps=np.zeros((3, 3, 4, 8, 12), np.uint8)), "s = 4"),
    "wrong words": (lambda path: altered(path, texts=texts_with(path, words=["a"])), "k = 1"),
    "words of numbers": (lambda path: altered(path, texts=texts_with(path, words=[1, 2, 3])), "words"),
    "wrong settings": (lambda path: altered(path, texts=texts_with(path, settings=[])), "settings"),
    "no fps": (lambda path: altered(path, texts=texts_with(path, fps=0)), "fps"),
    "endless fps": (lambda path: altered(path, texts=texts_with(path, fps=float("inf"))), "fps"),
    "another format": (lambda path: altered(path, texts=texts_with(path, format="minit2v recording 9")), "recording 9"),
    "steps beyond": (lambda path: altered(path, steps=np.array([0, 1, 2, 9])), "steps: expected rising"),
    "steps falling": (lambda path: altered(path, steps=np.array([0, 2, 1, 3])), "steps: expected rising"),
    "not numbers": (lambda path: altered(path, ranges__x=np.full((4, 2), np.nan, np.float32)), "finite"),
    "small pictures": (lambda path: altered(path, pictures=picture_of(8, 8)), "8x8 pixels"),
    "huge pictures": (lambda path: altered(path, texts=with_layout(path, width=9999, height=9999)), "49995x79992 pixels"),
    "negative pictures": (lambda path: altered(path, texts=with_layout(path, width=-24)), "layout .*-24"),
    "pictures of no size": (lambda path: altered(path, texts=with_layout(path, count=None)), "layout .*None"),
    "a huge file": (lambda path: bytes(LARGEST + 1), "bytes"),
    "a bomb": (lambda path: altered(path, x=np.zeros(10**7, np.uint8)), "unpack"),
    "a header that lies": (lambda path: altered(path, x=b"\x93NUMPY\x01\x00\x76\x00" + repr(
        {"descr": "|u1", "fortran_order": False, "shape": (10**13,)}).ljust(117).encode() + b"\n" + bytes(64)), ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_bad_files_are_refused_in_one_line(kind, pipe, tmp_path, recording_file):
    make, told = DAMAGE[kind]
    bad = tmp_path / "bad.npz"
    bad.write_bytes(make(recording_file))
    with pytest.raises(UserError, match=f"^expected a recording, found .*bad.npz damaged or .*: .*{told}") as error:
        Recording.load(bad)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600 and not Trap.ran


@pytest.fixture(scope="module")
def recording_file(pipe, tmp_path_factory):
    return recorded(pipe, PROMPT).save(tmp_path_factory.mktemp("recording") / "recording.npz")


def test_places_that_cannot_be(recording_file, tmp_path):
    recording = Recording.load(recording_file)
    assert Recording.load(str(recording_file)).prompt == PROMPT
    with pytest.raises(UserError, match="existing recording .*left.*no-such"):
        Recording.load(tmp_path / "no-such.npz")
    with pytest.raises(UserError, match="no-such"):
        Recording.load("no-such")
    with pytest.raises(UserError):
        Recording.load(tmp_path)
    for bad in (tmp_path / "recording.txt", tmp_path / "missing" / "recording.npz", tmp_path):
        with pytest.raises(UserError):
            recording.save(bad)
    with pytest.raises(UserError, match="expected one of x, eps, x0, found 'z'"):
        recording.latents("z")
    big = np.random.default_rng(0).integers(0, 256, (4, 3, 4, 300, 300), dtype=np.uint8)
    with pytest.raises(UserError, match="3,000,000 bytes"):
        replace(recording, x=big, eps=big, x0=big, words=[], cross=None).save(tmp_path / "big.npz")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_kept_of_a_run_that_fails(pipe, tmp_path):
    broken = pipeline()
    torch.nn.init.constant_(broken.unet.conv_out.bias, float("nan"))
    with pytest.raises(UserError, match="latents: expected finite"):
        record(broken, [PROMPT], tmp_path / "steps")
    assert list((tmp_path / "steps").iterdir()) == []


# shipped


@pytest.mark.parametrize("name", ["left", "right"])
def test_shipped_flights_are_of_the_shipped_model(mini, name):
    """After a new data/mini: `make recordings`."""
    recording = Recording.load(name)
    path = minit2v.files.data_dir() / f"recordings/{name}.npz"
    assert path.stat().st_size < 300_000 and recording.model == "mini"
    assert recording.preview.shape == (12, 16, 64, 64, 3)
    again = recorded(mini, recording.prompt, seed=recording.settings["seed"], guidance=recording.settings["guidance"])
    assert again.settings == recording.settings and again.words == recording.words
    for kept in LATENTS:
        assert np.abs(again.latents(kept) - recording.latents(kept)).mean() < 0.02, "record them again: make recordings"
    for kept in ATTENTION:
        assert np.abs(again.attention(kept) - recording.attention(kept)).mean() < 0.01
    assert np.abs(again.preview.astype(int) - recording.preview).mean() < 3
