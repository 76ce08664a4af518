"""Widgets: what they send to the browser, and what is shown where there is none; see also tests/browser."""

import base64
import io
import json
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from minit2v.diffusion import samplers
from minit2v.diffusion.process import Diffusion
from minit2v.errors import UserError
from minit2v.lab.widgets.base import VIEW, LabWidget, pack, png, to_uint8
from minit2v.lab.widgets.dial import NoiseDial
from minit2v.lab.widgets.pair import linked
from minit2v.lab.widgets.pictures import MOST_BYTES
from minit2v.lab.widgets.scrubber import LatentScrubber, colour_projection, numbered
from minit2v.lab.widgets.stepper import MOST_STEPS, SamplerStepper
from minit2v.presets import DiffusionConfig
from minit2v.recording.recording import Recording, packed
from minit2v.recording.sheets import atlas, cut

WIDGETS = Path(__file__).parent.parent / "minit2v/lab/widgets"
RNG = np.random.default_rng(0)


def make_recording(s=12, f=16, h=8, H=64, prompt="a red circle moves to a red ring", steps=None, attention=True,
                   latents=("x", "eps", "x0")):
    """A recording of random numbers: the least compressible one."""
    words = prompt.split() if attention else []
    arrays, ranges = {}, {}
    for name in latents:
        arrays[name], ranges[name] = packed(RNG.normal(size=(s, f, 4, h, h)))
    if attention:
        arrays["cross"], ranges["cross"] = packed(RNG.uniform(size=(s, len(words), f, h, h)))
        arrays["temporal"], ranges["temporal"] = packed(RNG.uniform(size=(s, f, f)))
    n = steps or s
    norms = {name: np.ones(n, np.float32) for name in latents}
    return Recording(
        prompt=prompt, model="mini", settings={"frames": f, "seed": 0}, fps=8, words=words,
        timesteps=np.linspace(999, 0, n).astype(np.int64), norms=norms,
        steps=np.linspace(0, n - 1, s).round().astype(np.int64), frames=np.arange(f),
        alpha_bar=np.linspace(0.01, 0.99, s, dtype=np.float32), ranges=ranges,
        preview=RNG.integers(0, 256, (s, f, H, H, 3), dtype=np.uint8), **arrays,
    )  # fmt: skip


def opened_pack(data, layout):
    """What `openNumbers` of lab.js does."""
    buffer, found = zlib.decompress(data), {}
    assert all(entry["start"] % 4 == 0 for entry in layout.values())  # a Float32Array may begin nowhere else
    for name, entry in layout.items():
        flat = np.frombuffer(buffer, entry["dtype"], int(np.prod(entry["shape"])), entry["start"])
        found[name] = flat.reshape(entry["shape"])
    return found


def opened_atlas(data, layout):
    """What `openAtlas` of lab.js does, for all tiles."""
    sheet = np.asarray(Image.open(io.BytesIO(data)))
    W, H, columns = (layout[key] for key in ("width", "height", "columns"))
    corners = [(i // columns * H, i % columns * W) for i in range(layout["count"])]
    return np.stack([sheet[y:y + H, x:x + W] for y, x in corners])


def shown(widget):
    """The mime bundle of a widget, data and metadata, and its picture (H, W, 3)."""
    data, metadata = widget._repr_mimebundle_()
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert getattr(image, "n_frames", 1) == 1, "nothing moves unasked"
    return data, metadata, np.asarray(image.convert("RGB"))


class Plain(LabWidget):
    step = traitlets.Int(0).tag(sync=True)

    def describe(self):
        return "a test"

    def alt(self):
        return "three frames"

    def picture(self):
        return np.arange(3 * 4 * 6 * 3, dtype=np.uint8).reshape(3, 4, 6, 3)


def every_widget():
    a, b = LatentScrubber(make_recording()), LatentScrubber(make_recording(s=5))
    diffusion = Diffusion(DiffusionConfig())
    clip = RNG.integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    start = torch.randn(50, 2)
    runs = {"short": list(samplers.SAMPLERS["ddim"](lambda x, t: x, start, diffusion, 5))}
    dial = NoiseDial(clip, {name: diffusion for name in ("one", "two", "three")})
    return Plain(), a, linked(a, b), dial, SamplerStepper(diffusion, start, runs)


# ---- the base --------------------------------------------------------------------------------------------------------


def test_every_widget_is_live_and_a_picture_and_a_fixed_text():
    for widget in every_widget():
        data, metadata, picture = shown(widget)
        assert set(data) == {"text/plain", "image/png", VIEW}
        assert data[VIEW]["model_id"] == widget.model_id == widget.name
        assert data["text/plain"] == repr(widget) and repr(widget).startswith(f"{type(widget).__name__}(")
        assert " at 0x" not in repr(widget)
        expected = widget.picture()
        assert np.array_equal(picture, expected if expected.ndim == 3 else expected[len(expected) // 2])
        assert len(png(widget.picture())) < MOST_BYTES
        size = metadata["image/png"]
        assert len(size["alt"]) > 10 and size["width"] <= 900
        assert size["width"] / size["height"] == pytest.approx(picture.shape[1] / picture.shape[0], rel=0.02)


def test_what_a_notebook_keeps_does_not_depend_on_where_the_sliders_are():
    scrubber = LatentScrubber(make_recording(), name="kept")
    before = json.dumps(scrubber._repr_mimebundle_())
    scrubber.step, scrubber.frame, scrubber.view = 3, 2, "noise"
    assert json.dumps(scrubber._repr_mimebundle_()) == before


def test_names_are_counted_for_each_class_and_a_second_one_takes_the_place_of_the_first():
    one, two = Plain(), Plain()
    numbers = [int(widget.model_id.removeprefix("plain-")) for widget in (one, two)]
    assert numbers[1] == numbers[0] + 1
    first = Plain(name="mine")
    assert first.comm is not None
    second = Plain(name="mine")
    assert first.comm is None and second.model_id == "mine" and second.comm is not None


def test_without_anywidget_there_are_pictures_and_text():
    code = """
import sys
sys.modules["anywidget"] = None
sys.path.insert(0, "tests")
import test_widgets
for widget in test_widgets.every_widget():
    data, metadata = widget._repr_mimebundle_()
    assert set(data) == {"text/plain", "image/png"}, set(data)
    assert "ipywidgets" not in sys.modules
    widget.step = 0
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=WIDGETS.parents[2], capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr


def test_nothing_is_loaded_from_the_internet():
    for path in [*WIDGETS.glob("*.js"), *WIDGETS.glob("*.css")]:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert "http:" not in text and "https:" not in text and "@import" not in text, path.name
        assert not any(line.startswith("import ") for line in text.splitlines()), path.name


@pytest.mark.parametrize("shape", [(1, 3, 5, 3), (7, 4, 4, 3), (30, 16, 8), (64, 1, 1, 3)])
def test_an_atlas_is_lossless(shape):
    pictures = RNG.integers(0, 256, shape, dtype=np.uint8)
    data, layout = atlas(pictures)
    expected = pictures if len(shape) == 4 else pictures[..., None].repeat(3, -1)
    assert np.array_equal(opened_atlas(data, layout), expected)
    assert np.array_equal(cut(data, layout), expected)


@pytest.mark.parametrize("shape", [(5, 16, 24, 3), (7, 24, 8)])
def test_a_smaller_atlas_loses_little(shape):
    y, x = np.mgrid[: shape[1], : shape[2]]
    pictures = np.stack([(10 * i + 3 * y + 5 * x).clip(0, 255) for i in range(shape[0])]).astype(np.uint8)
    pictures = pictures if len(shape) == 3 else np.stack([pictures, 255 - pictures, pictures // 2], axis=-1)
    back, expected = cut(*atlas(pictures, quality=90)), cut(*atlas(pictures))
    assert back.shape == expected.shape and np.abs(back.astype(int) - expected).mean() < 2


def test_an_atlas_has_a_limit_and_says_so():
    assert opened_atlas(*atlas(np.zeros((3, 1, 16000, 3), np.uint8))).shape == (3, 1, 16000, 3)
    with pytest.raises(UserError, match="at most 16383 pixels"):
        atlas(np.zeros((1, 1, 16384, 3), np.uint8))
    with pytest.raises(UserError, match=r"float64 \(2, 3, 3, 3\)"):
        atlas(np.zeros((2, 3, 3, 3)))


def test_packed_numbers_come_out_as_they_went_in():
    wide = RNG.integers(0, 65536, (3, 1, 5)).astype(np.uint16)
    arrays = {"odd": wide.ravel()[:5].astype(np.uint8), "wide": wide, "float": np.float32([[0.1, -2], [3, 4]])}
    found = opened_pack(*pack(**arrays))
    for name, array in arrays.items():
        assert np.array_equal(found[name], array) and found[name].dtype == array.dtype
    with pytest.raises(UserError, match="found float64 in x"):
        pack(x=np.zeros(3))


# ---- LatentScrubber and linked ---------------------------------------------------------------------------------------


def test_a_scrubber_sends_exactly_the_numbers_of_its_flight():
    recording = make_recording(s=6, steps=50)
    scrubber = LatentScrubber(recording)
    numbers = opened_pack(scrubber.numbers, scrubber.numbers_layout)
    for name in ("x", "eps", "x0", "cross", "temporal"):
        assert np.array_equal(numbers[name], getattr(recording, name))
        assert np.allclose(scrubber.info["ranges"][name], recording.ranges[name])
    pictures = opened_atlas(scrubber.pictures, scrubber.pictures_layout)
    assert np.array_equal(pictures, recording.preview.reshape(-1, 64, 64, 3))  # step by step, as in scrubber.js
    assert scrubber.info["t"] == recording.timesteps[recording.steps].tolist() and scrubber.info["ofSteps"] == 50
    assert json.loads(json.dumps(scrubber.info)) == scrubber.info


def test_a_scrubber_of_the_released_size_stays_small():
    recording = make_recording(s=11, f=8, h=32, steps=50)  # what `recording.plan` keeps of modelscope-1.7b
    scrubber = LatentScrubber(recording)
    assert len(scrubber.numbers) + len(scrubber.pictures) < 3_000_000
    assert len(png(scrubber.picture())) < MOST_BYTES


def test_traits_of_a_scrubber_can_be_set_and_wrong_ones_are_refused():
    scrubber = LatentScrubber(make_recording(), step=11, frame=15, view="decoded", word="red (2)")
    assert (scrubber.step, scrubber.frame, scrubber.view, scrubber.word) == (11, 15, "decoded", "red (2)")
    wrong = {"step": 12, "frame": -1, "view": "everything", "word": "blue"}
    for name, value in wrong.items():
        with pytest.raises(UserError, match=f"{name}: expected"):
            setattr(scrubber, name, value)
    with pytest.raises(UserError, match="step: expected 0 to 11, found 12"):
        LatentScrubber(make_recording(), step=12)
    with pytest.raises(UserError, match="expected a Recording, found 'left'"):
        LatentScrubber("left")
    assert numbered(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]


def test_a_flight_without_attention_has_no_views_of_it():
    scrubber = LatentScrubber(make_recording(attention=False))
    assert scrubber.views == ["latent channels", "latent as colour", "clip x0", "noise", "decoded"]
    assert scrubber.words == [] and scrubber.word == ""
    with pytest.raises(UserError, match="view: expected one of latent channels"):
        scrubber.view = "cross-attention"


def test_a_recording_of_another_system_shows_what_there_is():
    """Without x0, noise and alpha_bar: the latents after the step are what is decoded."""
    recording = make_recording(attention=False, latents=("x",))
    recording.alpha_bar = None
    scrubber = LatentScrubber(recording)
    assert scrubber.views == ["latent channels", "latent as colour", "decoded"] and scrubber.info["shown"] == "x"
    assert list(opened_pack(scrubber.numbers, scrubber.numbers_layout)) == ["x"]
    assert scrubber.info["alphaBar"] is None and json.loads(json.dumps(scrubber.info)) == scrubber.info
    assert len(png(scrubber.picture())) < MOST_BYTES
    linked(scrubber, LatentScrubber(make_recording())).picture()


def test_the_colour_projection_finds_the_map_that_made_the_pixels():
    latents = RNG.uniform(-1, 1, size=(2, 3, 4, 5, 6))
    truth = np.vstack([RNG.uniform(-25, 25, size=(4, 3)), [[120, 130, 140]]])
    pixels = np.einsum("sfchw,cd->sfhwd", latents, truth[:-1]) + truth[-1]
    pixels = pixels.round().astype(np.uint8).repeat(4, 2).repeat(4, 3)  # the decoder enlarges
    assert np.abs(colour_projection(latents, pixels) - truth).max() < 0.5


def test_linked_scrubbers_know_each_other():
    a, b = LatentScrubber(make_recording(), name="a"), LatentScrubber(make_recording(s=5), name="b")
    pair = linked(a, b, name="both")
    assert pair.model_id == "both" and pair.scrubbers == ["a", "b"] and a.compact and b.compact
    assert pair.picture().shape[-3] == a.picture().shape[-3] + b.picture().shape[-3] + 4
    for wrong in (a, 3):
        with pytest.raises(UserError, match="two different LatentScrubbers"):
            linked(a, wrong)


# ---- NoiseDial -------------------------------------------------------------------------------------------------------


def test_the_dial_shows_what_add_noise_gives():
    """The browser's arithmetic (`shade` in dial.js) against the library's, for pixels and for latents."""
    diffusions = {name: Diffusion(DiffusionConfig(schedule=name)) for name in ("linear", "cosine")}
    for clip in (torch.rand(1, 3, 5, 8, 6) * 2 - 1, torch.randn(4, 5, 3, 2)):
        dial = NoiseDial(clip, diffusions, seed=3)
        x0 = clip.reshape(1, *clip.shape[-4:])
        noise = torch.from_numpy(dial.noise).transpose(0, 1)[None]
        numbers = opened_pack(dial.numbers, dial.numbers_layout)
        value = {key: low + numbers[key] / 255 * (high - low) for key, (low, high) in dial.info["ranges"].items()}
        for i, (name, diffusion) in enumerate(diffusions.items()):
            for t in (0, 500, 999):
                expected = diffusion.add_noise(x0, noise, torch.tensor([t]))[0].transpose(0, 1).numpy()
                assert np.allclose(dial.x_t(t, name), expected, atol=1e-5)
                a = numbers["alpha_bar"][i, t]
                found = a**0.5 * value["x0"] + (1 - a) ** 0.5 * value["noise"]
                steps = [(high - low) / 255 for low, high in dial.info["ranges"].values()]
                assert np.abs(found - expected).max() <= sum(steps) / 2 + 1e-4
        shared = dial.x_t(999, "cosine", shared=True) - diffusions["cosine"].alpha_bar[999].sqrt().item() * dial.x0
        assert np.allclose(shared, shared[:1], atol=1e-5) and not np.allclose(dial.noise[0], dial.noise[1])


def test_the_dial_takes_pixels_as_they_are_and_refuses_what_is_no_clip():
    clip = RNG.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    diffusion = Diffusion(DiffusionConfig())
    dial = NoiseDial(clip, diffusion)
    assert np.array_equal(to_uint8(dial.x0, *dial.limits)[0], np.moveaxis(clip, 3, 1)) and dial.schedule == "schedule"
    for wrong in (torch.zeros(3, 4), torch.zeros(2, 3, 4, 8, 8), "clip", torch.zeros(3, 4, 8, 8, dtype=torch.long)):
        with pytest.raises(UserError, match="clip: expected"):
            NoiseDial(wrong, diffusion)
    for diffusions in ({}, {"a": diffusion, "b": Diffusion(DiffusionConfig(timesteps=10))}):
        with pytest.raises(UserError, match="diffusions: expected"):
            NoiseDial(clip, diffusions)
    for name, value in {"t": 1000, "frame": 2, "schedule": "other"}.items():
        with pytest.raises(UserError, match=f"{name}: expected"):
            setattr(dial, name, value)


# ---- SamplerStepper --------------------------------------------------------------------------------------------------


def numbers_of(stepper, run, kind):
    """What stepper.js computes of what was sent."""
    raw = opened_pack(stepper.numbers, stepper.numbers_layout)[f"{run}.{kind}"]
    low, high = stepper.info["runs"][run]["ranges"][kind]
    return low + raw / np.iinfo(raw.dtype).max * (high - low), (high - low) / np.iinfo(raw.dtype).max


def test_the_stepper_shows_every_step_of_a_sampler():
    diffusion = Diffusion(DiffusionConfig())
    for start in (torch.randn(40, 2), torch.randn(1, 4, 3, 5, 6)):
        dice = torch.Generator().manual_seed(0)
        runs = {("0", "7"): list(samplers.SAMPLERS["ddim"](lambda x, t: x / 2, start, diffusion, 7)),
                ("1", "5"): list(samplers.SAMPLERS["ddpm"](lambda x, t: x / 2, start, diffusion, 5, generator=dice))}
        stepper = SamplerStepper(diffusion, start, runs, axes=("eta", "steps"))
        for i, steps in enumerate(runs.values()):
            states = [start, *(step.x for step in steps)]
            kinds = {"before": states[:-1], "after": states[1:]}
            kinds |= {"noise": [step.eps for step in steps], "x0": [step.x0 for step in steps]}
            for kind, expected in kinds.items():
                found, quantum = numbers_of(stepper, i, kind)
                expected = torch.stack(expected)
                expected = expected if start.ndim == 2 else expected[:, 0].transpose(1, 2)
                assert np.abs(found - expected.numpy()).max() <= quantum / 2 + 1e-5
            assert stepper.info["runs"][i]["t"] == [step.t for step in steps]
            assert np.allclose(stepper.info["runs"][i]["alphaBar"], [diffusion.alpha_bar[step.t] for step in steps])


@pytest.mark.parametrize("missing", [("eps",), ("x0",), ("eps", "x0")])
def test_the_stepper_shows_steps_of_a_system_without_noise_or_x0(missing):
    for start in (torch.randn(40, 2), torch.randn(1, 4, 3, 5, 6)):
        steps = samplers.SAMPLERS["ddim"](lambda x, t: x / 2, start, Diffusion(DiffusionConfig()), 4)
        steps = [replace(step, **dict.fromkeys(missing)) for step in steps]
        decode = lambda z: np.zeros((1, 3, 8, 8, 3), np.uint8) if start.ndim == 5 else None
        stepper = SamplerStepper(None, start, {"one": steps}, decode=decode)
        kinds = ["before", *(kind for kind, name in (("noise", "eps"), ("x0", "x0")) if name not in missing), "after"]
        assert stepper.info["kinds"] == kinds and stepper.info["runs"][0]["alphaBar"] is None
        assert [name.split(".")[1] for name in opened_pack(stepper.numbers, stepper.numbers_layout)] == kinds
        assert stepper.info["decoded"] == ("" if start.ndim == 2 else "after" if "x0" in missing else "x0")
        assert len(png(stepper.picture())) < MOST_BYTES


def test_long_runs_are_thinned_and_decoded_clips_are_in_order():
    diffusion, start = Diffusion(DiffusionConfig()), torch.randn(1, 4, 3, 2, 2)
    long, short = (list(samplers.SAMPLERS["ddim"](lambda x, t: x, start, diffusion, n)) for n in (250, 4))

    def decode(latents):
        pixels = latents[:, :3].movedim(1, -1).repeat_interleave(4, 2).repeat_interleave(4, 3)
        return (pixels * 20 + 128).clamp(0, 255).to(torch.uint8).numpy()

    stepper = SamplerStepper(diffusion, start, {"long": long, "short": short}, decode=decode)
    first, second = stepper.info["runs"]
    assert len(first["t"]) == MOST_STEPS and first["total"] == 250
    assert first["kept"][-1] == 249 and second["kept"] == [0, 1, 2, 3]
    pictures = opened_atlas(stepper.pictures, stepper.pictures_layout)
    last = (MOST_STEPS + 3) * 3 + 2  # of the runs, their steps, their frames, in the order of stepper.js
    assert np.array_equal(pictures[last], decode(short[3].x0)[0, 2])
    data, _, _ = shown(stepper)
    assert len(data["image/png"]) < MOST_BYTES * 4 / 3


def test_the_stepper_refuses_what_it_cannot_show():
    diffusion, start = Diffusion(DiffusionConfig()), torch.randn(40, 2)
    runs = {"one": list(samplers.SAMPLERS["ddim"](lambda x, t: x, start, diffusion, 3))}
    with pytest.raises(UserError, match="start: expected points"):
        SamplerStepper(diffusion, torch.randn(40, 3), runs)
    with pytest.raises(UserError, match="runs: expected keys of 1 texts"):
        SamplerStepper(diffusion, start, {})
    with pytest.raises(UserError, match="runs: expected keys of 2 texts"):
        SamplerStepper(diffusion, start, runs, axes=("eta", "steps"))
    gone = {"nan": samplers.SAMPLERS["ddim"](lambda x, t: x * torch.nan, start, diffusion, 3)}
    with pytest.raises(UserError, match="runs: expected finite numbers"):
        SamplerStepper(diffusion, start, gone)
    with pytest.raises(UserError, match="runs: expected steps"):
        SamplerStepper(diffusion, start, gone)  # used up
    stepper = SamplerStepper(diffusion, start, runs, point=39)
    for name, value in {"step": 3, "point": 40, "run": ["two"]}.items():
        with pytest.raises(UserError, match=f"{name}: expected"):
            setattr(stepper, name, value)
