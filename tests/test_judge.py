"""The judge on clips whose truth is known: every way to damage a clip, and what may be left of each attribute."""

from dataclasses import replace

import numpy as np
import pytest

from minit2v.datasets.moving_things import MovingThings, Spec, Thing, parse
from minit2v.datasets.moving_things.render import COLOURS, SHAPES
from minit2v.datasets.moving_things.scenes import render
from minit2v.errors import UserError
from minit2v.evaluation.judge import ATTRIBUTES, Reading, agrees, path, read, unsteady

COUNT = {32: 150, 64: 60}  # clips of each picture size
TIME = np.arange(16)


@pytest.fixture(scope="module", params=COUNT)
def clips(request):
    """(frames (n, 16, H, H, 3), specs) of seen, held-out and image-only combinations in turn."""
    third = range(COUNT[request.param] // 3)
    splits = ("test_seen", "test_heldout", "test_imageonly")
    parts = [MovingThings(split, size=request.param).batch(third) for split in splits]
    return np.concatenate([frames for frames, _, _ in parts]), [spec for _, _, specs in parts for spec in specs]


def rates(frames, specs):
    """Share of clips read right, {attribute: 0..1}."""
    verdicts = [agrees(read(clip), spec) for clip, spec in zip(frames, specs)]
    return {key: np.mean([verdict[key] for verdict in verdicts]) for key in verdicts[0]}


def noise(clip, rng, sigma):
    noisy = clip + sigma * rng.standard_normal(clip.shape, np.float32)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def blur(clip, sigma):
    """Gaussian blur by sigma pixels of a picture of 32, in proportion at other sizes."""
    pixel = np.arange(clip.shape[1], dtype=np.float32)
    kernel = np.exp(-((pixel[:, None] - pixel) ** 2) / (2 * (sigma * len(pixel) / 32) ** 2))
    kernel /= kernel.sum(1, keepdims=True)
    planes = kernel @ clip.transpose(0, 3, 1, 2).astype(np.float32) @ kernel.T  # (f H W c) -> (f c H W)
    return planes.transpose(0, 2, 3, 1).round().astype(np.uint8)


def pool(clip):
    """Blocks of 2x2 pixels become one pixel."""
    f, h, w, c = clip.shape
    return clip.reshape(f, h // 2, 2, w // 2, 2, c).mean((2, 4)).astype(np.uint8)


ABOVE_99 = dict.fromkeys((*ATTRIBUTES, "all"), (0.99, 1))
LOOKS = dict.fromkeys(("shape", "colour", "size"), (0.99, 1))
NEVER = dict.fromkeys((*ATTRIBUTES, "all"), (0, 0))
NO_MOTION = LOOKS | dict.fromkeys(("motion", "speed", "all"), (0, 0.02))
# name: damage to a clip (f, H, H, 3), with a random generator; {attribute: (least, most) of the share read right}
DAMAGES = {
    "clean": (lambda clip, rng: clip, ABOVE_99),
    "noise 15": (lambda clip, rng: noise(clip, rng, 15), ABOVE_99),
    "noise 30": (lambda clip, rng: noise(clip, rng, 30), ABOVE_99),
    "noise 45": (lambda clip, rng: noise(clip, rng, 45), ABOVE_99),
    "blur 0.7": (lambda clip, rng: blur(clip, 0.7), ABOVE_99),
    "blur 1.2": (lambda clip, rng: blur(clip, 1.2), ABOVE_99),
    "blur and noise": (lambda clip, rng: noise(blur(clip, 0.7), rng, 15), ABOVE_99),
    "pooled": (lambda clip, rng: pool(clip), ABOVE_99),
    "pooled, blown up": (lambda clip, rng: pool(clip).repeat(2, axis=1).repeat(2, axis=2), ABOVE_99),
    "shuffled": (lambda clip, rng: rng.permutation(clip), NO_MOTION),
    "frozen": (lambda clip, rng: clip[:1].repeat(16, axis=0), NO_MOTION),
    "reversed": (lambda clip, rng: clip[::-1], LOOKS | {"speed": (0.99, 1), "motion": (0, 0), "all": (0, 0)}),
    "stops at frame 8": (lambda clip, rng: clip[np.minimum(TIME, 8)], NO_MOTION),
    "stops at frame 12": (lambda clip, rng: clip[np.minimum(TIME, 12)], NO_MOTION),
    "turns back at frame 8": (lambda clip, rng: clip[np.where(TIME < 8, TIME, 16 - TIME)], NO_MOTION),
    "black": (lambda clip, rng: np.zeros_like(clip), NEVER),
    "white": (lambda clip, rng: np.full_like(clip, 255), NEVER),
    "uniform noise": (lambda clip, rng: rng.integers(0, 256, clip.shape, np.uint8), NEVER),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_a_damage_leaves(clips, name):
    damage, bars = DAMAGES[name]
    rng = np.random.default_rng(0)
    found = rates((damage(clip, rng) for clip in clips[0]), clips[1])
    assert all(low <= found[key] <= high for key, (low, high) in bars.items()), found


def test_every_frame_from_another_clip(clips):
    """No identity and no path, so next to nothing is read; the size is, where all are of one size by chance."""
    frames, specs = clips
    found = rates((frames[(i + 7 * TIME) % len(frames), TIME] for i in range(len(frames))), specs)
    assert max(found["shape"], found["colour"]) <= 0.1 and found["size"] <= 0.5, found
    assert max(found["motion"], found["speed"], found["all"]) <= 0.02, found


def test_a_clip_of_another_prompt_scores_chance(clips):
    """About 1/6 for shape and colour (less for their eight values here), 1/2 for size and speed, 1/4 for direction."""
    found = rates(np.roll(clips[0], 37, axis=0), clips[1])
    for key, low, high in (("shape", 0.04, 0.3), ("colour", 0.04, 0.3), ("size", 0.3, 0.7), ("motion", 0.13, 0.4),
                           ("speed", 0.3, 0.7), ("all", 0, 0.02)):  # fmt: skip
        assert low <= found[key] <= high, found


@pytest.mark.parametrize("attribute, values", [
    ("shape", SHAPES), ("colour", tuple(COLOURS)), ("size", ("small", "large")),
])  # fmt: skip
def test_a_thing_must_stay_the_same(clips, attribute, values):
    """From frame 8 on one attribute is another: it is not read, the motion still is."""
    size = clips[0].shape[2]
    specs, others = clips[1], []
    for i, spec in enumerate(specs):
        now = values.index(getattr(spec.things[0], attribute))
        value = values[(now + 1 + i % (len(values) - 1)) % len(values)]
        others.append(replace(spec, things=(replace(spec.things[0], **{attribute: value}),)))
    places = np.full((len(specs), 3), 0.5)
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


@pytest.mark.parametrize("split, size, frames", [
    ("test_long", 64, 32), ("test_imageonly", 48, 16), ("test_seen", 128, 12),
])  # fmt: skip
def test_other_lengths_and_sizes(split, size, frames):
    clips, _, specs = MovingThings(split, size=size, frames=frames).batch(range(40))
    assert rates(clips, specs)["all"] == 1


def test_a_path_says_what_the_judge_objects_to(clips):
    """One half quicker than the other, a way there and back, a still: the direction is that of the whole way."""
    late, back = np.r_[0:3, [3] * 8, 3:13:2], np.r_[0:16:2, 15:0:-2]
    for clip, spec in zip(*clips):
        motion = spec.things[0].motion
        assert path(clip) == (motion, ()) and path(clip[late])[0] == motion
        for frames in (clip[late], clip[back]):
            assert "uneven" in path(frames)[1] and read(frames).motion is None
        assert "slow" in path(np.repeat(clip[:1], 16, axis=0))[1]
    assert path(np.zeros_like(clips[0][0])) == (None, ("hidden",))


def test_pictures_have_a_look_and_no_motion():
    clips, _, specs = MovingThings("val", images=True).batch(range(40))
    assert rates(clips, specs)["all"] == 1 and all(read(clip).motion is None for clip in clips)


def test_what_the_spec_leaves_out_is_not_asked():
    spec = Spec((Thing("circle", "red", motion="left"),))
    assert agrees(Reading("circle", "red", "large", "left", None), spec)["all"]
    assert not agrees(Reading("circle", None, "large", "left", None), spec)["all"]


@pytest.mark.parametrize("shape, dtype", [
    ((16, 64, 64), np.uint8), ((16, 64, 64, 3), float), ((0, 64, 64, 3), np.uint8),
])  # fmt: skip
def test_not_a_clip(shape, dtype):
    with pytest.raises(UserError, match=r"frames: expected uint8 \(f, H, W, 3\)"):
        read(np.zeros(shape, dtype))


def test_more_than_one_thing_is_refused():
    with pytest.raises(UserError, match="one thing"):
        agrees(Reading(), Spec((Thing("circle"), Thing("square"))))


def test_a_clip_is_steady_unless_a_frame_looks_otherwise():
    """Real clips are; one other colour or shape in a single frame is seen; an empty clip shows nothing to change."""
    frames, _, specs = MovingThings("test_seen").batch(range(40))
    assert not any(any(unsteady(clip).values()) for clip in frames)
    place = np.array([[0.5, 0.5, 0.0]])
    draw = lambda text: render([parse(text)], place, 64, 16)[0]
    clip = draw("a large red circle moves slowly left")
    for other, expected in {
        "a large purple circle moves slowly left": {"colour changes": True, "shape breaks": False},
        "a large red cross moves slowly left": {"colour changes": False, "shape breaks": True},
    }.items():
        changed = clip.copy()
        changed[9] = draw(other)[9]
        assert unsteady(changed) == expected
    assert not any(unsteady(np.full((16, 64, 64, 3), 24, np.uint8)).values())
