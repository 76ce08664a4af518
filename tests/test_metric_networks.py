"""The networks that the metrics look through: what they are built of, how they are trained, what the shipped see."""

import json
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minit2v import cli
from minit2v.datasets.moving_things import MovingThings, Spec, Thing, caption, parse
from minit2v.datasets.moving_things.dataset import held_out
from minit2v.errors import UserError
from minit2v.evaluation.estimates import wilson
from minit2v.evaluation.judge import agrees, read
from minit2v.evaluation.mini import card, networks
from minit2v.evaluation.mini import train as metrics
from minit2v.evaluation.mini.damage import damage, draw_severities
from minit2v.evaluation.mini.features import features
from minit2v.evaluation.mini.networks import (
    HEADS,
    TO_PICTURES,
    TO_TIME,
    VALUES,
    ClipNet,
    FactoredConv,
    resize,
    signed,
)
from minit2v.evaluation.mini.similarity import Similarity, wrong_captions
from minit2v.files import data_dir

SHIPPED = data_dir() / "metrics"
N = 48  # clips
WIDE = 3.3  # standard deviations of an interval that a right figure leaves once in a thousand times


@pytest.fixture(scope="module")
def val():
    """(clips, captions, specs) of val."""
    return MovingThings("val").batch(range(N))


@pytest.fixture(scope="module")
def random_clips():
    return np.random.default_rng(0).integers(0, 256, (3, 7, 40, 48, 3), dtype=np.uint8)


# ---- built of ----

@pytest.mark.parametrize("factor", [1, 2, 3])
def test_resize_by_a_whole_number_is_the_mean_of_blocks(random_clips, factor):
    clips = np.repeat(np.repeat(random_clips[:, :, :, :40], factor, 2), factor, 3)
    clips = np.random.default_rng(1).permuted(clips, axis=3)
    n, f, size = *clips.shape[:2], 40
    blocks = clips.reshape(n, f, size, factor, size, factor, 3).mean((3, 5)).transpose(0, 4, 1, 2, 3)
    assert torch.allclose(resize(clips, size), torch.from_numpy(blocks).float(), atol=1e-3)


@pytest.mark.parametrize("size", [7, 32, 45, 64])
def test_resize_keeps_what_an_area_average_keeps(random_clips, size):
    """The mean, the range, and the result if every pixel were four smaller ones; a tone turns into no false pattern."""
    small = resize(random_clips, size)
    assert small.shape == (3, 3, 7, size, size)
    mean = random_clips.mean((1, 2, 3))  # (n 3)
    assert torch.allclose(small.mean((2, 3, 4)).double(), torch.from_numpy(mean), atol=1e-3)
    assert small.min() >= random_clips.min() - 1e-3 and small.max() <= random_clips.max() + 1e-3
    fine = np.repeat(np.repeat(random_clips, 2, 2), 2, 3)
    assert torch.allclose(resize(fine, size), small, atol=1e-3)
    stripes = np.tile(np.array([0, 255], np.uint8), 48)[None, None, None, :, None].repeat(96, 2).repeat(3, 4)
    if size < 45:  # the finest stripes there are; sampling without averaging would keep their contrast of 255
        assert resize(stripes, size).std() < 255 / 4


def test_a_factored_convolution_is_two_of_three_dimensions():
    conv = FactoredConv(5, 8, 2, 2).eval()
    clips = torch.randn(2, 5, 9, 8, 8)
    found, f = conv(clips.transpose(1, 2).flatten(0, 1), 9)
    assert f == 5 and found.shape == (10, 8, 4, 4)
    x = F.conv3d(clips, conv.space.weight[:, :, None], stride=(1, 2, 2), padding=(0, 1, 1))
    x = F.relu(x / (1 + conv.norm.eps) ** 0.5)
    x = F.conv3d(x, conv.time.weight[..., None], stride=(2, 1, 1), padding=(1, 0, 0)) / (1 + conv.norm.eps) ** 0.5
    assert torch.allclose(found.unflatten(0, (2, 5)).transpose(1, 2), x, atol=1e-5)
    weights = conv.space.weight.numel() + conv.time.weight.numel()
    assert 0.85 * 27 * 5 * 8 < weights <= 27 * 5 * 8  # no more than the 3x3x3 convolution; the width is a whole number


@pytest.mark.parametrize("f", [1, 2, 16, 21])
def test_clips_of_any_length(f):
    net = ClipNet(("shape",), ("noise", "drop")).eval()
    found = net(torch.randn(2, 3, f, 32, 32))
    assert found.shape == (2, 64) and set(net.heads(found)) == {"shape", "damage: noise", "damage: drop"}


# ---- trained on ----

def test_damage_of_severity_zero_is_none_and_of_time_only_moves_frames(val):
    clips = signed(resize(val[0][:6]))
    for kind in TO_PICTURES + TO_TIME:
        generator = torch.Generator().manual_seed(0)
        assert torch.equal(damage(clips, {kind: torch.zeros(6)}, generator), clips), kind
        worst = damage(clips, {kind: torch.ones(6)}, generator)
        assert worst.shape == clips.shape and worst.abs().max() <= 1
        changed = (worst != clips).flatten(1).any(1)
        assert changed.all() or kind in ("occlusion", "drop") and changed.any(), kind
        if kind in ("freeze", "shuffle", "jitter", "drop"):
            same = (worst[:, :, :, None] == clips[:, :, None]).all((1, 4, 5))  # (b f f)
            assert same.any(2).all(), kind
            if kind == "shuffle":
                assert same.any(1).all()
    assert (damage(clips, {"freeze": torch.ones(6)}, generator) == clips[:, :, :1]).all()


def test_severities_are_mostly_of_one_kind():
    drawn = torch.stack(list(draw_severities(4000, TO_TIME, torch.Generator().manual_seed(0)).values()))
    kinds = (drawn > 0).sum(0)
    assert kinds.max() == 2 and abs((kinds == 0).float().mean() - 0.3 * 0.6) < 0.03
    assert 0.48 < drawn[drawn > 0].mean() < 0.53 and drawn.max() <= 1


def test_pictures_are_set_in_motion_as_the_judge_sees():
    """The rule-based judge reads from shifted pictures what their new specs say; nothing held out is among it."""
    data = MovingThings("train", images=True)
    pictures, _, specs = data.batch(range(60))
    clips, moved = metrics.set_in_motion(resize(pictures, 64), specs, 16, torch.Generator().manual_seed(0))
    clips = clips.round().byte().permute(0, 2, 3, 4, 1).numpy()
    right = [agrees(read(clip), spec)["all"] for clip, spec in zip(clips, moved)]
    assert np.mean(right) > 0.95 and not any(held_out(spec) for spec in moved), np.mean(right)
    assert len({(spec.things[0].motion, spec.things[0].speed) for spec in moved}) == 8


@pytest.mark.parametrize("name", HEADS)
def test_a_batch_says_what_it_shows(name):
    """It is drawn from the generator alone, has the things that only pictures have, and asks for nothing unseen."""
    task = metrics.NetworkTask(name)
    one, again = (task.draw(torch.Generator().manual_seed(5), 96) for _ in range(2))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert one["clips"].shape == (96, 3, 1 if name == "frame" else 16, 32, 32) and one["clips"].abs().max() <= 1
    only_pictures = [VALUES["shape"].index("heart"), VALUES["shape"].index("star")]
    pictures = torch.arange(96) >= 48
    rare = torch.isin(one["shape"], torch.tensor(only_pictures))
    assert rare.any() and not rare[~pictures].any()
    if name == "motion":
        stills = torch.arange(96) >= 84
        assert (one["damage: freeze"][stills] == 1).all() and (one["weight: motion"][stills] == 0).all()
        assert (one["weight: motion"][one["damage: freeze"] == 0] > 0).any()
    loss, figures = task(one)
    loss.backward()
    assert torch.isfinite(loss) and set(task.attributes) <= set(figures)


def test_a_stopped_training_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "SHARES", {"frame": 0.5, "content": 0.5})
    monkeypatch.setattr(card, "accuracy", partial(card.accuracy, n=4))
    small = {"batch": "4"}
    metrics.run(tmp_path / "whole", 60, settings=small | {"steps": "3"})
    metrics.run(tmp_path / "parts", 60, settings=small | {"steps": "2"})
    (tmp_path / "parts/content/checkpoint.pt").unlink()  # as if it had not begun
    metrics.run(tmp_path / "parts", 60, resume=True, settings=small | {"steps": "3"})
    table = json.loads((tmp_path / "whole/accuracy.json").read_text())
    assert {row["network"] for row in table} == {"frame", "content"} and all(row["n"] == 4 for row in table)
    whole, parts = ((tmp_path / folder / "content.safetensors").read_bytes() for folder in ("whole", "parts"))
    assert whole == parts
    with pytest.raises(UserError, match="--resume"):
        metrics.run(tmp_path / "parts", 60)
    with pytest.raises(UserError, match="nothing to resume"):
        metrics.run(tmp_path / "none", 60, resume=True)


@pytest.mark.parametrize("options, message", [
    (["--preset", "nano"], "serve every model"), (["--from", "mini"], "serve every model"),
    (["--set", "colour=red"], "unknown setting"),
])  # fmt: skip
def test_what_cannot_be_asked_of_the_command(options, message, tmp_path, capsys):
    assert cli.main(["train", "metrics", "--out", str(tmp_path / "new"), *options]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "new").exists()


# ---- shipped ----

def test_features_do_not_depend_on_the_batch(val, monkeypatch):
    for name, shape in (("motion", (5, 64)), ("content", (5, 64)), ("frame", (5, 16, 64)), ("similarity", (5, 16, 64))):
        found = features(name)(val[0][:5])
        assert found.shape == shape and found.dtype == np.float64 and found.std() > 0
        alone = np.concatenate([features(name)(val[0][i : i + 1]) for i in range(5)])
        assert np.allclose(found, alone, atol=1e-4), name
        monkeypatch.setattr(networks, "BATCH", 2)
        assert np.allclose(found, features(name)(val[0][:5]), atol=1e-4)
        monkeypatch.undo()


def test_the_networks_are_as_good_as_the_card_says():
    """On other clips than the card's, of the same captions but at other places; a figure beyond chance fails."""
    table = {(row["network"], row["task"]): row for row in json.loads((SHIPPED / "accuracy.json").read_text())}
    some = [row for name in ("motion", "frame") for row in card.accuracy(name, networks.load(name), N, seed=1)]
    some += card.accuracy("similarity", Similarity.load().towers, N, seed=1)
    assert len(some) > 20
    for row in some:
        card_row = table[row["network"], row["task"]]
        low, high = wilson(row["right"], N, WIDE)
        assert low <= card_row["right"] / card_row["n"] <= high, (row, card_row)


def test_the_card_has_the_table_and_the_files_are_small():
    assert all(path.stat().st_size < 3e6 for path in SHIPPED.iterdir())
    table = card.markdown(json.loads((SHIPPED / "accuracy.json").read_text()))
    assert table in (SHIPPED / "README.md").read_text("utf-8")


def test_time_is_in_the_features(val):
    """Frozen and shuffled clips, whose frames are those of clean ones, are recognised."""
    clips, rng = val[0], np.random.default_rng(0)
    frozen = clips[:, :1].repeat(16, axis=1)
    shuffled = np.stack([clip[rng.permutation(16)] for clip in clips])
    clean = card.predict(networks.load("motion"), clips)
    for kind, damaged in (("freeze", frozen), ("shuffle", shuffled)):
        found = card.predict(networks.load("motion"), damaged)[f"damage: {kind}"]
        right = np.mean(found > clean[f"damage: {kind}"].max())
        assert right > 0.95, (kind, right)


def test_pictures_taught_what_only_pictures_have():
    """Hearts, stars, purple and orange move in no clip of train, but in test_imageonly. Chance is 1/8."""
    clips, _, specs = MovingThings("test_imageonly").batch(range(N))
    predicted = card.predict(networks.load("motion"), clips)
    for name, rare in (("shape", ("heart", "star")), ("colour", ("purple", "orange"))):
        pairs = [(VALUES[name][i], getattr(spec.things[0], name)) for i, spec in zip(predicted[name], specs)]
        right = [found == true for found, true in pairs if true in rare]
        assert len(right) > 10 and np.mean(right) > 0.5, (name, np.mean(right))


def test_a_gap_of_frames_is_blind_to_direction_where_that_of_clips_is_not(val):
    clips, _, specs = val
    similarity = Similarity.load()
    of_clips, of_frames = similarity.swap_gap(clips, specs), similarity.swap_gap(clips, specs, of_frames=True)
    assert of_clips.mean() > 10 * abs(of_frames.mean()), (of_clips.mean(), of_frames.mean())
    assert (of_clips > 0).mean() > 0.8
    backwards = similarity.swap_gap(clips[:, ::-1], specs)  # what no distribution of clips sees, each clip shows
    assert backwards.mean() < -of_clips.mean() / 2
    still = similarity.swap_gap(clips[:, :1].repeat(16, axis=1), specs)
    assert abs(still.mean()) < of_clips.mean() / 4


def test_r_precision_is_high_for_true_captions_and_chance_for_others(val):
    clips, _, specs = val
    similarity = Similarity.load()
    assert similarity.rank(clips, specs).mean() > 10 / 32
    wrong = np.concatenate([similarity.rank(clips, specs[k:] + specs[:k], seed=k) for k in (7, 13, 29)])
    low, high = wilson(int(wrong.sum()), len(wrong), WIDE)
    assert low <= 1 / 32 <= high, wrong.mean()
    assert np.array_equal(similarity.rank(clips[:9], specs[:9]), similarity.rank(clips, specs)[:9])


def test_similarity_is_higher_with_the_own_caption(val):
    clips, captions, _ = val
    similarity = Similarity.load()
    for measure in (similarity.frame, similarity.video):
        own, other = measure(clips, captions), measure(clips, captions[7:] + captions[:7])
        assert own.shape == (N,) and abs(own).max() <= 1 + 1e-9 and own.mean() > other.mean() + 0.1


# ---- captions, mistakes ----

@pytest.mark.parametrize("spec, hard", [
    (Spec((Thing("heart", "purple", "small", "left", "slowly"),)), 4), (Spec((Thing("ring", "red"),)), 2),
])  # fmt: skip
def test_wrong_captions_have_other_meanings(spec, hard):
    for seed in range(20):
        meanings = [parse(text) for text in wrong_captions(spec, np.random.default_rng(seed))]
        assert len({*meanings, spec}) == 32
        differing = [
            {name for name in VALUES if getattr(meaning.things[0], name) != getattr(spec.things[0], name)}
            for meaning in meanings
        ]
        assert all(len(names) == 1 for names in differing[:4])
        assert len({name for names in differing[:4] for name in names}) == hard  # each of another attribute
        assert all((meaning.things[0].size is None) == (spec.things[0].size is None) for meaning in meanings)


def test_mistakes(tmp_path, monkeypatch, val):
    clips, captions, _ = val
    two = Spec((Thing("circle", "red"), Thing("ring", "blue")), relation="above")
    with pytest.raises(UserError, match="unknown network 'i3d'; known are motion"):
        features("i3d")
    for wrong in (clips[0], clips.astype(float), clips[:0], [1, 2]):
        with pytest.raises(UserError, match="expected clips"):
            features("motion")(wrong)
    with pytest.raises(UserError, match="a caption for each of 48 clips"):
        Similarity.load().frame(clips, captions[:3])
    with pytest.raises(UserError, match="one thing"):
        Similarity.load().rank(clips[:1], [two])
    with pytest.raises(UserError, match="moves left"):
        Similarity.load().swap_gap(clips[:1], [parse("a red ring")])
    with pytest.raises(UserError, match="say shape and colour"):
        wrong_captions(parse("a ring"), np.random.default_rng(0))
    monkeypatch.setattr(networks, "data_dir", lambda: tmp_path)
    networks.load.cache_clear()
    with pytest.raises(UserError, match="run minit2v train metrics"):
        features("motion")


def test_captions_of_the_grammar_are_known():
    for shape in VALUES["shape"]:
        for style in range(0, 60, 7):
            said = caption(Spec((Thing(shape, "orange", "large", "up", "quickly"),)), style=style)
            assert Similarity.load().tokens([said]).max() > 0
