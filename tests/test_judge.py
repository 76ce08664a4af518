"""The judge against clips whose truth is known: every way to damage a clip, and what may be left of each attribute."""

from dataclasses import replace

import numpy as np
import pytest

from minit2v.datasets import MovingThings, Spec, Thing
from minit2v.datasets.render import COLOURS, SHAPES
from minit2v.datasets.scenes import render
from minit2v.errors import UserError
from minit2v.evaluation.judge import ATTRIBUTES, Reading, agrees, read

N = 150
SIZES = (32, 64)
TIME = np.arange(16)


@pytest.fixture(scope="module", params=SIZES)
def clips(request):
    """(frames (N, 16, H, H, 3), specs) of seen, held-out and image-only combinations in turn."""
    parts = [MovingThings(split, size=request.param).batch(range(N // 3)) for split in ("test_seen", "test_heldout", "test_imageonly")]
    return np.concatenate([frames for frames, _, _ in parts]), [spec for _, _, specs in parts for spec in specs]


def rates(frames, specs):
    """Share of clips read right, {attribute: 0..1}."""
    verdicts = [agrees(read(clip), spec) for clip, spec in zip(frames, specs)]
    return {key: np.mean([verdict[key] for verdict in verdicts]) for key in verdicts[0]}


def noise(frames, sigma):
    return np.clip(frames + np.random.default_rng(0).normal(0, sigma, frames.shape), 0, 255).astype(np.uint8)


def blur(frames, sigma):
    """Gaussian blur by sigma pixels of a picture of 32, in proportion at other sizes."""
    pixel = np.arange(frames.shape[2])
    kernel = np.exp(-((pixel[:, None] - pixel) ** 2) / (2 * (sigma * len(pixel) / 32) ** 2))
    kernel /= kernel.sum(1, keepdims=True)
    rows = np.tensordot(kernel, frames, (1, 2))  # (H b f W c)
    return np.tensordot(kernel, rows, (1, 3)).transpose(2, 3, 1, 0, 4).round().astype(np.uint8)  # (W H b f c) -> clips


def pool(frames):
    """Blocks of 2x2 pixels become one pixel."""
    b, f, h, w, c = frames.shape
    return frames.reshape(b, f, h // 2, 2, w // 2, 2, c).mean((3, 5)).astype(np.uint8)


def shuffle(frames):
    return np.random.default_rng(0).permuted(np.broadcast_to(TIME, (len(frames), 16)), axis=1)[:, :, None, None, None]


ABOVE_99 = dict.fromkeys((*ATTRIBUTES, "all"), (0.99, 1))
LOOKS = dict.fromkeys(("shape", "colour", "size"), (0.99, 1))
NEVER = dict.fromkeys((*ATTRIBUTES, "all"), (0, 0))
NO_MOTION = LOOKS | dict.fromkeys(("motion", "speed", "all"), (0, 0.02))
DAMAGES = {  # name: damage, {attribute: (least, most)} of the share read right
    "clean": (lambda frames: frames, ABOVE_99),
    "noise 15": (lambda frames: noise(frames, 15), ABOVE_99),
    "noise 30": (lambda frames: noise(frames, 30), ABOVE_99),
    "noise 45": (lambda frames: noise(frames, 45), ABOVE_99),
    "blur 0.7": (lambda frames: blur(frames, 0.7), ABOVE_99),
    "blur 1.2": (lambda frames: blur(frames, 1.2), ABOVE_99),
    "blur and noise": (lambda frames: noise(blur(frames, 0.7), 15), ABOVE_99),
    "pooled": (pool, ABOVE_99),
    "pooled, blown up": (lambda frames: pool(frames).repeat(2, axis=2).repeat(2, axis=3), ABOVE_99),
    "every second frame lost in one third": (lambda frames: frames[:, np.where(TIME < 5, TIME // 2 * 2, TIME)], ABOVE_99),
    "shuffled": (lambda frames: np.take_along_axis(frames, shuffle(frames), axis=1), NO_MOTION),
    "frozen": (lambda frames: frames[:, :1].repeat(16, axis=1), NO_MOTION),
    "reversed": (lambda frames: frames[:, ::-1], LOOKS | {"speed": (0.99, 1), "motion": (0, 0), "all": (0, 0)}),
    "stops at frame 8": (lambda frames: frames[:, np.minimum(TIME, 8)], NO_MOTION),
    "stops at frame 12": (lambda frames: frames[:, np.minimum(TIME, 12)], NO_MOTION),
    "turns back at frame 8": (lambda frames: frames[:, np.where(TIME < 8, TIME, 16 - TIME)], NO_MOTION),
    "black": (np.zeros_like, NEVER),
    "white": (lambda frames: np.full_like(frames, 255), NEVER),
    "uniform noise": (lambda frames: np.random.default_rng(0).integers(0, 256, frames.shape, np.uint8), NEVER),
    "every frame from another clip": (
        lambda frames: frames[(np.arange(N)[:, None] + 7 * TIME) % N, TIME],
        {"shape": (0, 0.1), "colour": (0, 0.1), "size": (0, 0.5), "motion": (0, 0.02), "speed": (0, 0.02), "all": (0, 0)},
    ),
    "wrong prompt": (
        lambda frames: np.roll(frames, 37, axis=0),
        {"shape": (0.03, 0.3), "colour": (0.03, 0.3), "size": (0.35, 0.65), "motion": (0.12, 0.4), "speed": (0.35, 0.65),
         "all": (0, 0.02)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_what_a_damage_leaves(clips, name):
    damage, bars = DAMAGES[name]
    frames, specs = clips
    found = rates(damage(frames), specs)
    assert all(low <= found[key] <= high for key, (low, high) in bars.items()), found


@pytest.mark.parametrize("attribute, values", [("shape", SHAPES), ("colour", tuple(COLOURS)), ("size", ("small", "large"))])
def test_a_thing_must_stay_the_same(clips, attribute, values):
    """From frame 8 on one attribute is another: it is not read, the motion still is."""
    size = clips[0].shape[2]
    specs, others = clips[1], []
    for i, spec in enumerate(specs):
        value = values[(values.index(getattr(spec.things[0], attribute)) + 1 + i % (len(values) - 1)) % len(values)]
        others.append(replace(spec, things=(replace(spec.things[0], **{attribute: value}),)))
    places = np.full((N, 3), 0.5)
    switched = render(specs, places, size, 16)
    switched[:, 8:] = render(others, places, size, 16)[:, 8:]
    found = rates(switched, specs)
    assert found[attribute] <= 0.02 and found["all"] <= 0.02 and found["motion"] >= 0.97, found


def test_two_things_are_not_one(clips):
    """Two things far apart and of any sizes: the judge says nothing, rather than reading the larger one."""
    size = clips[0].shape[2]
    one, other = (Spec((Thing("circle", "white", size_, "up", "slowly"),)) for size_ in ("large", "small"))
    left, right = (render([spec], np.array([[x, 0.5, 0]]), size, 16)[0] for spec, x in ((one, 0), (other, 1)))
    assert read(left) == Reading("circle", "white", "large", "up", "slowly")
    assert read(np.maximum(left, right)) == Reading()


def test_two_colours_are_not_their_mean(clips):
    """A thing half red, half blue is not purple."""
    size = clips[0].shape[2]
    clip, other = (
        render([Spec((Thing("square", colour, "large", "up", "slowly"),))], np.full((1, 3), 0.5), size, 16)[0]
        for colour in ("red", "blue")
    )
    clip[:, :, : size // 2] = other[:, :, : size // 2]
    reading = read(clip)
    assert reading.colour is None and reading.motion == "up"


@pytest.mark.parametrize("split, size, frames", [("test_long", 64, 32), ("test_imageonly", 48, 16), ("test_seen", 128, 12)])
def test_other_lengths_and_sizes(split, size, frames):
    clips, _, specs = MovingThings(split, size=size, frames=frames).batch(range(40))
    assert rates(clips, specs)["all"] == 1


def test_pictures_have_a_look_and_no_motion():
    clips, _, specs = MovingThings("val", images=True).batch(range(40))
    assert rates(clips, specs)["all"] == 1 and all(read(clip).motion is None for clip in clips)


def test_what_the_spec_leaves_out_is_not_asked():
    spec = Spec((Thing("circle", "red", motion="left"),))
    assert agrees(Reading("circle", "red", "large", "left", None), spec)["all"]
    assert not agrees(Reading("circle", None, "large", "left", None), spec)["all"]


@pytest.mark.parametrize("frames", [np.zeros((16, 64, 64), np.uint8), np.zeros((16, 64, 64, 3)), np.zeros((0, 64, 64, 3), np.uint8)])
def test_not_a_clip(frames):
    with pytest.raises(UserError, match="expected a clip"):
        read(frames)


def test_more_than_one_thing_is_refused():
    with pytest.raises(UserError, match="one thing"):
        agrees(Reading(), Spec((Thing("circle"), Thing("square"))))
