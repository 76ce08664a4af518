"""Moving Things: pixels agree with the specification, and the splits keep apart what they promise to."""

from itertools import combinations

import numpy as np
import pytest

from minit2v.datasets import Batch, Dataset, Probe, VideoText, find_data
from minit2v.datasets.moving_things import MovingThings, MovingThingsData, Spec, Thing, parse, sprites
from minit2v.datasets.moving_things.data import DRAWING
from minit2v.datasets.moving_things.dataset import (
    HELD_OUT_LOOKS,
    HELD_OUT_MOTIONS,
    HELD_OUT_PACES,
    IMAGE_ONLY,
    LEVELS,
    MOTIONS,
    PATTERNS,
    SPLITS,
    held_out,
)
from minit2v.datasets.moving_things.render import COLOURS, SHAPES, paint
from minit2v.datasets.moving_things.scenes import BACKGROUND, DIRECTIONS, SIDES, SPEED, render, scene
from minit2v.errors import UserError

SLOTS = ("shape", "colour", "size", "motion", "speed")
MOTION_WORDS = set(
    "moves slides travels left leftwards right rightwards up upwards down downwards to".split()
)


def specs(split, n, **settings):
    data = MovingThings(split, **settings)
    return [data.text(index)[1] for index in range(min(n, len(data)))]


def painted(shape, x, y, radius, size=64):
    """Coverage (size, size) of one white thing on black."""
    frames = np.zeros((1, 1, size, size, 3), np.uint8)
    one = np.ones((1, 1))
    paint(
        frames, np.array([SHAPES.index(shape)]), np.full((1, 3), 255), np.array([[[x, y]]]), radius * one, one
    )
    return frames[0, 0, :, :, 0] / 255


def centroids(frames):
    """Centre of what differs from a plain background, in picture widths, and its mass; (f, 2), (f,)."""
    weight = np.abs(frames.astype(float) - BACKGROUND).sum(-1)
    mass, place = weight.sum((1, 2)), (np.arange(frames.shape[1]) + 0.5) / frames.shape[1]
    return np.stack([(weight.sum(1) @ place) / mass, (weight.sum(2) @ place) / mass], -1), mass


@pytest.mark.parametrize("level", LEVELS)
def test_a_clip_depends_on_its_index_alone(level):
    data, indices = MovingThings("train", level, size=32), [7, 999_999, 0, 7, 31]
    frames, captions, found = data.batch(indices)
    assert frames.shape == (5, 16, 32, 32, 3) and frames.dtype == np.uint8
    for k, index in enumerate(indices):
        again = MovingThings("train", level, size=32)[index]
        assert np.array_equal(again.frames, frames[k]) and again[1:] == (captions[k], found[k])
    assert not np.array_equal(frames[0], frames[1])
    assert frames[0].tobytes() != MovingThings("val", level, size=32)[7].frames.tobytes()


@pytest.mark.parametrize("shape, inside", [
    ("circle", lambda x, y: x**2 + y**2 < 0.95**2),
    ("square", lambda x, y: np.maximum(abs(x), abs(y)) < 0.85),
    ("ring", lambda x, y: (x**2 + y**2 < 1) & (x**2 + y**2 > 0.52**2)),
])  # fmt: skip
def test_coverage_is_that_of_a_supersampled_picture(shape, inside):
    for x, y, radius in ((0.4, 0.5, 0.18), (0.513, 0.377, 0.11), (0.2, 0.8077, 0.06)):
        fine = (np.arange(64 * 16) + 0.5) / (64 * 16)
        exact = inside((fine - x) / radius, (fine[:, None] - y) / radius).reshape(64, 16, 64, 16).mean((1, 3))
        found = painted(shape, x, y, radius)
        assert np.abs(found - exact).max() < 0.3 and np.abs(found - exact).mean() < 0.002  # 0.3: at a corner
        assert found.sum() == pytest.approx(exact.sum(), rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_tenth_of_a_pixel_is_seen_at_any_picture_size(shape):
    for size in (32, 64):
        path = [painted(shape, 0.4 + k / 10 / size, 0.5, 0.18, size) for k in range(11)]
        x = np.array([(picture.sum(0) @ np.arange(size)) / picture.sum() for picture in path])
        assert np.abs(np.diff(x) - 0.1).max() < 0.03


def test_shapes_and_colours_are_far_apart():
    small = np.stack([painted(shape, 0.5, 0.5, 0.11)[22:42, 22:42].ravel() for shape in SHAPES])
    assert (np.corrcoef(small) - np.eye(len(SHAPES))).max() < 0.92
    palette = np.array(list(COLOURS.values()), float)
    palette /= np.linalg.norm(palette, axis=1, keepdims=True)
    assert (palette @ palette.T - np.eye(len(COLOURS))).max() < 0.96


def test_the_pixels_move_as_the_spec_says_and_nothing_is_cut_off():
    frames, _, found = MovingThings("train").batch(range(60))
    for clip, spec in zip(frames, found, strict=True):
        thing = spec.things[0]
        centre, mass = centroids(clip)
        velocity = np.diff(centre, axis=0)
        assert np.abs(velocity - SPEED[thing.speed] * np.array(DIRECTIONS[thing.motion])).max() < 0.002
        assert mass == pytest.approx(mass.mean(), rel=0.05)
        pixel = clip[np.abs(clip.astype(int) - BACKGROUND).sum(-1) > 0][:, None].astype(int)
        assert np.abs(pixel - COLOURS[thing.colour]).sum(-1).min() <= 3


def test_things_are_everywhere_in_pictures():
    frames, _, _ = MovingThings("train", images=True).batch(range(400))
    assert frames.shape == (400, 1, 64, 64, 3)
    seen = (np.abs(frames.astype(int) - BACKGROUND).sum((1, 4)) > 0).mean(0)
    assert (
        seen[6:-6, 6:-6].min() > 0
        and min(edge.sum() for edge in (seen[1], seen[-2], seen.T[1], seen.T[-2])) > 0
    )
    centre = np.stack([centroids(clip)[0][0] for clip in frames])
    assert np.histogram2d(*centre.T, bins=3, range=[[0.1, 0.9]] * 2)[0].min() > 20


@pytest.mark.parametrize("level, split", [*((level, "train") for level in LEVELS), (2, "test_long")])
def test_every_thing_stays_inside_the_picture(level, split):
    rng = np.random.default_rng(0)
    for spec in specs(split, 200, level=level):
        for place in (rng.random(3), np.array([0, 1, rng.random()])):
            centre, radius, _ = scene(spec, place, 32 if split == "test_long" else 16)
            assert (centre - radius[..., None]).min() > -1e-9 and (
                centre + radius[..., None]
            ).max() < 1 + 1e-9


def test_motions_changes_relations_and_counts_are_what_they_are_called():
    place = np.array([0.5, 0.5, 0.1])

    def centre(text):
        return scene(parse(text), place, 16)[0]

    for sense, sign in (("clockwise", 1), ("counter-clockwise", -1)):
        (x, y) = (centre(f"a small red ring circles {sense} quickly")[0] - 0.5).T
        assert (np.sign(x[:-1] * y[1:] - y[:-1] * x[1:]) == sign).all()  # y runs down
        assert (x[0], y[0]) == pytest.approx((x[-1], y[-1]))  # one turn
    bounce = centre("a small red ring bounces quickly")[0]
    assert np.ptp(bounce[:, 0]) == 0 and (np.diff(np.sign(np.diff(bounce[:, 1]))) != 0).sum() >= 3
    assert np.ptp(centre("a small red ring stays still"), axis=1).max() == 0
    corner = np.diff(centre("a small red ring moves slowly right, then up")[0], axis=0)
    assert corner[0] == pytest.approx([SPEED["slowly"], 0]) and corner[-1] == pytest.approx(
        [0, -SPEED["slowly"]]
    )
    assert np.diff(scene(parse("a small red ring stays still and grows"), place, 16)[1]).min() > 0
    assert np.diff(scene(parse("a small red ring stays still and shrinks"), place, 16)[1]).max() < 0
    assert set(scene(parse("a small red ring stays still and blinks"), place, 16)[2]) == {0.3, 1.0}
    for relation, side in {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}.items():
        first, second = centre(f"a small red ring {relation} a large blue cross, both move slowly left")
        assert np.sign(np.round(first - second, 9)).tolist() == [list(side)] * 16
    for count, word in ((2, "two"), (3, "three")):
        frames = render(
            [parse(f"{word} large red squares stay still on a dark background")], place[None], 64, 1
        )
        row = (frames[0, 0, :, :, 0] > 128).any(0).astype(int)
        assert (np.diff(row) == 1).sum() == count


def test_backgrounds_differ_and_stay():
    frames = render(
        [parse(f"a small red ring stays still on a {name} background") for name in PATTERNS],
        np.full((3, 3), 0.5), 64, 2,
    )  # fmt: skip
    assert len({clip.tobytes() for clip in frames}) == 3 and np.array_equal(frames[:, 0], frames[:, 1])
    for clip, pattern in zip(
        frames[:, 0, :16], ((0, 0), (1, 0), (1, 1)), strict=True
    ):  # changes across, down
        assert (clip[0, 7] != clip[0, 8]).any() == pattern[0] and (clip[7, 0] != clip[8, 0]).any() == pattern[
            1
        ]


def test_held_out_combinations_never_occur_and_all_others_do():
    found = specs("train", 4000)
    assert not any(map(held_out, found + specs("val", 512) + specs("train", 1000, images=True)))
    values = {slot: {getattr(spec.things[0], slot) for spec in found} for slot in SLOTS}
    assert [len(values[slot]) for slot in SLOTS] == [6, 6, 2, 4, 2]
    for a, b in combinations(SLOTS, 2):
        seen = {(getattr(spec.things[0], a), getattr(spec.things[0], b)) for spec in found}
        every = {(x, y) for x in values[a] for y in values[b]}
        assert every - seen == every & (HELD_OUT_LOOKS | HELD_OUT_MOTIONS), (a, b)
    triples = {(spec.things[0].colour, spec.things[0].size, spec.things[0].speed) for spec in found}
    assert len(triples) == 24 - len(HELD_OUT_PACES)
    straight = [pair for pair in HELD_OUT_MOTIONS if pair[0] in values["shape"] and pair[1] in MOTIONS[1]]
    twelve = [pair for pair in HELD_OUT_MOTIONS if pair[0] in values["shape"]]
    shares = len(HELD_OUT_LOOKS) / 36, len(straight) / 24, len(twelve) / 72
    assert np.abs(np.array(shares) - 0.2).max() < 0.02 and len(HELD_OUT_PACES) / 24 == pytest.approx(
        0.1, abs=0.02
    )


@pytest.mark.parametrize("level", [2, 3, 4, "R"])
def test_other_levels_hold_out_too_and_show_every_value(level):
    found = specs("train", 1000, level=level)
    assert not any(map(held_out, found + specs("train", 500, level=level, images=True)))
    assert all(map(held_out, specs("test_heldout", 200, level=level)))
    assert not {(spec.things[0].shape, spec.then) for spec in found} & HELD_OUT_MOTIONS
    assert {spec.things[0].motion for spec in found} == set(MOTIONS[level])
    shapes = {spec.things[0].shape for spec in found}
    assert shapes == set(sprites.CLASSES if level == "R" else SHAPES) - IMAGE_ONLY
    assert {spec.count for spec in found} == ({1, 2, 3} if level == 3 else {1})
    assert {spec.relation for spec in found} == ({*SIDES, None} if level == 3 else {None})


def test_image_only_concepts_occur_in_pictures_without_motion_words():
    data, new, looks = MovingThings("train", images=True), 0, set()
    for index in range(1500):
        text, spec = data.text(index)
        assert not MOTION_WORDS & set(text.split()) and spec.things[0].motion is None
        look = spec.things[0].shape, spec.things[0].colour
        new += bool(IMAGE_ONLY & set(look))
        looks.add(look)
    assert new / 1500 == pytest.approx(0.25, abs=0.03)
    assert looks == {(shape, colour) for shape in SHAPES for colour in COLOURS} - HELD_OUT_LOOKS
    for split in set(SPLITS) - {"test_imageonly"}:
        assert not any(IMAGE_ONLY & {s.things[0].shape, s.things[0].colour} for s in specs(split, 300))
    for spec in specs("test_imageonly", 256):
        assert IMAGE_ONLY & {spec.things[0].shape, spec.things[0].colour} and spec.things[0].motion


def test_test_captions_say_everything_and_training_captions_leave_some_unsaid():
    for split, size in SPLITS.items():
        data = MovingThings(split)
        assert len(data) == size
        texts = [data.text(index) for index in range(min(size, 512))]
        complete = np.mean([parse(text) == spec for text, spec in texts])
        assert complete == (pytest.approx(0.85**2, abs=0.05) if split == "train" else 1)
        assert all(map(held_out, (spec for _, spec in texts))) == (split == "test_heldout")
    assert len({MovingThings("test_seen").text(index)[0] for index in range(512)}) > 400


def test_long_clips_have_32_frames_at_the_same_speed():
    frames, _, found = MovingThings("test_long").batch(range(20))
    assert frames.shape[1] == 32
    assert {spec.things[0].speed for spec in found} == {"slowly"}
    for clip in frames:
        velocity = np.diff(centroids(clip)[0], axis=0)
        assert np.abs(np.linalg.norm(velocity, axis=1) - SPEED["slowly"]).max() < 0.002


def test_the_chinese_twin_shows_the_same_clip():
    for level in LEVELS:
        english, chinese = (
            MovingThings("val", level, size=16, language=language)[3] for language in ("en", "zh")
        )
        assert parse(english.caption) == parse(chinese.caption) == english.spec == chinese.spec
        assert np.array_equal(english.frames, chinese.frames)


def test_photographs_of_tests_are_not_those_of_training(monkeypatch):
    used = {}

    def note(names, numbers, widths):
        used.setdefault(split, set()).update(zip(names, numbers, strict=True))
        return np.zeros((len(names), 30, 30), np.float32)

    monkeypatch.setattr(sprites, "photos", note)
    for split in ("train", "val", "test_seen"):
        MovingThings(split, "R", size=8, frames=1).batch(range(400))
    assert not used["train"] & (used["val"] | used["test_seen"]) and len(used["val"]) > 100


def test_photographs_are_drawn_without_flicker():
    photo = sprites.photos(["shirt"], [3], np.array([14.0]))
    spec, mass = Spec((Thing("shirt", None, "small"),)), []
    for x in np.linspace(0.4, 0.45, 11):
        mass.append(centroids(render([spec], np.array([[x, 0.5, 0]]), 64, 1, photo)[0])[1][0])
    assert np.ptp(mass) / np.mean(mass) < 0.03
    stored = sprites.photos(["shirt"] * 200, list(range(200)), np.full(200, 28.0))
    assert len(np.unique(stored.reshape(200, -1), axis=0)) == 200 and 0 <= stored.min() < stored.max() <= 1


@pytest.mark.parametrize("level", LEVELS)
def test_it_is_a_data_set_whose_captions_can_be_wrong_in_one_word(level):
    data = MovingThingsData(str(level))
    items, known = data.open("val", 4, 16, 16), set(data.words())
    assert isinstance(data, Dataset) and isinstance(data, Probe) and isinstance(items, VideoText)
    assert isinstance(items.batch([0]), Batch) and items.batch([0]).frames.shape == (1, 4, 16, 16, 3)
    assert data.open("val", 4, 16, 16, images=True).batch([0]).frames.shape == (1, 1, 16, 16, 3)
    for index in range(100):
        _, spec = items.text(index)
        assert parse(data.right(spec)) == spec
        for name in data.attributes:
            wrong = data.wrong(spec, name)
            first, others = parse(wrong).things[0], spec.things[1:]
            differs = [slot for slot in SLOTS if getattr(first, slot) != getattr(spec.things[0], slot)]
            assert differs == [name] and set(wrong.replace(",", "").split()) <= known, wrong
            assert len(parse(wrong).things) == 1 + len(others)
            choices = data.choices(spec, name)
            if getattr(spec.things[0], name) is not None:
                assert choices[0] == data.right(spec) and len(set(choices)) == len(choices) > 1
                assert all(set(choice.replace(",", "").split()) <= known for choice in choices)


def test_a_data_set_is_known_by_its_level():
    assert find_data("moving-things").identity() == MovingThingsData(1).identity() != MovingThingsData(2).identity()
    for mistake in (lambda: MovingThingsData(7), lambda: MovingThingsData().open("val", 16, 32, 64)):
        with pytest.raises(UserError, match="expected .*, found (7|64x32)"):
            mistake()


DRAWN = {  # by drawing 1: captions of the items 3 and 70,000 of train, and their mean grey level
    1: ("a big cyan triangle travels downwards", "a white ring slides to the right gently", 38.875),
    2: ("a little yellow moon slides slowly up and to the left and blinks over a striped background",
        "a little red circle moves quickly rightwards over a checkered background", 42.759),
    3: ("a huge blue triangle left of a big cyan cross, both run in a circle counter-clockwise gently on a dark "
        "background",
        "a huge white circle left of a small blue ring, both bounce quickly over a striped background", 37.551),
    4: ("a tiny white moon travels quickly leftwards, then downwards over a striped background",
        "a small red moon slides quickly downwards, then rightwards over a dark background", 36.581),
    "R": ("a dress travels quickly upwards", "a little sneaker moves rapidly up", 30.146),
}  # fmt: skip


@pytest.mark.parametrize("level", LEVELS)
def test_the_drawing_number_is_raised_when_items_change(level):
    frames, captions, _ = MovingThings("train", level, size=32).batch([3, 70_000])
    assert DRAWING == 1 and (*captions, pytest.approx(frames.mean(), abs=0.02)) == DRAWN[level]


@pytest.mark.parametrize("settings", [
    {"split": "training"}, {"split": "train", "level": 5}, {"split": "train", "frames": 17},
    {"split": "train", "frames": 0}, {"split": "test_long", "frames": 33}, {"split": "train", "size": 0},
    {"split": "train", "language": "fr"}, {"split": "test_heldout", "level": "R", "images": True},
])  # fmt: skip
def test_mistakes_are_user_errors(settings):
    with pytest.raises(UserError):
        MovingThings(**settings)


def test_beyond_the_end_and_incomplete_specs():
    with pytest.raises(IndexError):
        MovingThings("val")[512]
    with pytest.raises(UserError, match="speed"):
        render([parse("a small red circle moves left")], np.zeros((1, 3)), 64, 16)
