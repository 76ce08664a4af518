"""The full-scale metrics on stand-ins of the published networks.

With the real I3D: MINIT2V_I3D=i3d_torchscript.pt MINIT2V_I3D_SHA256=HEX pytest tests/test_full_scale.py
"""

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from minit2v.checkpoints.fetching import sha256
from minit2v.errors import UserError
from minit2v.evaluation.estimates import ratio_estimate
from minit2v.evaluation.frechet import frechet_distance, kernel_distance
from minit2v.evaluation.full_scale import metrics as full_scale
from minit2v.evaluation.full_scale.backbones import (
    CLIP,
    I3D,
    SELF_TEST,
    TOLERANCE,
    Inception,
    checked_self_test,
    self_test,
)
from minit2v.evaluation.full_scale.extraction import Videos
from minit2v.evaluation.full_scale.metrics import fid_estimate, measure, similarity
from minit2v.evaluation.full_scale.settings import FullScaleSettings
from minit2v.pixels import square
from minit2v.video import Clip

pytestmark = [pytest.mark.filterwarnings("ignore:`torch.jit"), pytest.mark.filterwarnings("ignore:.*skipped, no file")]
CPU = torch.device("cpu")
TINY = {
    "embed_dim": 16, "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}  # fmt: skip
CAPTIONS = ["a red ring moves", "a dog runs", "two people talk", "a car", "rain falls",
            "somebody cooks", "a cat sleeps"]
NAMES = {"i3d": "i3d.pt", "inception": "inception.pth", "clip": "clip.pt"}


class StandInI3D(nn.Module):
    """I3D's signature; its features are the mean and spread of colours, and how much they change."""

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        if not (rescale and resize and return_features):
            raise RuntimeError("called in another way than I3D is")
        x = x / 127.5 - 1
        step = (x[:, :, 1:] - x[:, :, :-1]).abs()
        return torch.cat([x.mean(dim=[2, 3, 4]), x.std(dim=[2, 3, 4]), step.mean(dim=[2, 3, 4])], 1)


class Counting(list):
    """A list of clips with a label that remembers which parts were requested; may stop working at one."""

    def __init__(self, clips, label="counting", fails_at=None):
        super().__init__(clips)
        self.label, self.fails_at, self.requested = label, fails_at, []

    def __getitem__(self, which):
        if which.start == self.fails_at:
            raise KeyboardInterrupt
        self.requested.append(which.start)
        return super().__getitem__(which)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """FullScaleSettings that name a stand-in for each file."""
    import open_clip
    from torchmetrics.image.fid import NoTrainInceptionV3

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    torch.jit.script(StandInI3D()).save(folder / "i3d.pt")
    (folder / "tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny.json")
    torch.save(open_clip.create_model("tiny").state_dict(), folder / "clip.pt")
    with pytest.MonkeyPatch.context() as patch:  # Inception untrained: its class has no other way in than a file
        patch.setattr(nn.Module, "load_state_dict", lambda *_: None)
        patch.setattr(torch, "load", lambda *_, **__: {})
        network = NoTrainInceptionV3("inception-v3-compat", ["64"], str(folder))
    torch.save(network.state_dict(), folder / "inception.pth")
    digests = {f"{key}_sha256": sha256(folder / name) for key, name in NAMES.items()}
    paths = {key: folder / name for key, name in NAMES.items()}
    sizes = {"size": 40, "frames": 10, "batch": 3, "device": "cpu"}
    return FullScaleSettings(**paths, **digests, **sizes, inception_layer=64, clip_model="tiny")


def clips(n, seed=0, size=(40, 40), shift=0):
    """Smooth random clips, (n, 10, H, W, 3) uint8."""
    colours = np.random.default_rng(seed).integers(40, 200, (n, 10, 4, 4, 3)) + shift
    return np.stack([np.stack([np.asarray(Image.fromarray(f).resize(size[::-1])) for f in clip])
                     for clip in colours.astype(np.uint8)])  # fmt: skip


def test_identical_sets_are_no_distance_apart_and_order_and_batches_do_not_matter(files):
    made, texts = clips(3), CAPTIONS[:3]
    same = measure(made, texts, made[::-1], files, texts[::-1], other_real_clips=clips(3, seed=5))
    assert list(same) == ["FVD", "KVD", "FID-vid", "FID-vid (CLIP)", "CLIPSIM", "CLIPSIM / real"]
    for name in ("FVD", "FID-vid", "FID-vid (CLIP)"):
        assert abs(same[name].value) < 1e-4 * same[name].floor and same[name].n == 3
    assert same["CLIPSIM / real"].value == pytest.approx(1)
    files = replace(files, inception=None)
    other = measure(clips(3, shift=40), texts, made, files)
    turned = measure(clips(3, shift=40)[::-1], texts[::-1], made[::-1], replace(files, batch=2), texts[::-1])
    for name in other:
        assert turned[name].value == pytest.approx(other[name].value, rel=1e-4)
    assert other["FVD"].value > 0.01


def test_every_distance_has_a_floor(files):
    """Of further real clips, which there must be enough of, or of two halves of the real ones."""
    made, real, other = clips(4, shift=20), clips(5, seed=1), clips(6, seed=2)
    texts, distances = (CAPTIONS[:4], CAPTIONS[:5]), ("FVD", "KVD", "FID-vid", "FID-vid (CLIP)")
    halves = measure(made, texts[0], real, files, texts[1])
    further = measure(made, texts[0], real, files, texts[1], other)
    network = I3D.load(files.i3d, files.i3d_sha256, CPU)
    x, y = network.features(real), network.features(other)
    assert further["FVD"].floor == pytest.approx(frechet_distance(y[:4], x))
    assert further["KVD"].floor == pytest.approx(kernel_distance(y[:4], x))
    order = np.random.default_rng(files.seed).permutation(5)
    assert halves["FVD"].floor == pytest.approx(frechet_distance(x[order[:2]], x[order[2:]]))
    for name in distances:
        assert None not in (halves[name].floor, further[name].floor)
        assert halves[name].floor != further[name].floor and halves[name].value == further[name].value
    three = measure(made[:3], CAPTIONS[:3], real[:3], files)
    assert all(three[name].floor is None for name in distances)
    with pytest.raises(UserError, match="floor: expected at least 4 further real clips, found 3"):
        measure(made, texts[0], real, files, texts[1], other[:3])


def test_fid_of_frames_is_torchmetrics_number_and_ours(files):
    x, y = clips(3)[:, :2], clips(3, seed=1, shift=20)[:, :2]
    network = Inception.load(files.inception, files.inception_sha256, 64, CPU)
    made, real = network.features(x), network.features(y)
    estimate = fid_estimate(made, real)
    assert made.shape == (3, 2, 64) and estimate.value == pytest.approx(frechet_distance(made, real), rel=1e-5)
    assert estimate.low <= estimate.value <= estimate.high
    from torchmetrics.image.fid import FrechetInceptionDistance

    whole = FrechetInceptionDistance(64, feature_extractor_weights_path=str(files.inception))  # its own resizing
    for several, real in ((x, False), (y, True)):
        frames = np.stack([np.stack([square(f[None], 299)[0] for f in clip]) for clip in several])
        whole.update(torch.from_numpy(frames.reshape(-1, 299, 299, 3)).permute(0, 3, 1, 2), real=real)
    assert estimate.value == pytest.approx(float(whole.compute()), rel=1e-5)


def test_clipsim_is_the_hand_computation_with_open_clips_own_preprocessing(files):
    import open_clip

    network = open_clip.create_model("tiny").eval()
    network.load_state_dict(torch.load(files.clip, weights_only=True))
    preprocess = open_clip.image_transform(32, is_train=False)
    made, expected = clips(3, size=(40, 40)), []
    with torch.no_grad():
        for clip, caption in zip(made, CAPTIONS):
            frames = torch.stack([preprocess(Image.fromarray(frame)) for frame in clip])
            image, text = network.encode_image(frames), network.encode_text(open_clip.tokenize([caption]))
            expected.append(nn.functional.cosine_similarity(image, text).mean().item())
    clip = CLIP.load(files.clip, files.clip_sha256, "tiny", CPU)
    found = similarity(clip.features(made), clip.texts(CAPTIONS[:3]))
    assert found == pytest.approx(expected, abs=2e-3) and np.ptp(expected) > 0.01
    two_each = [[caption, "a"] for caption in CAPTIONS[:3]]
    measured = measure(made, CAPTIONS[:3], made, replace(files, i3d=None, inception=None), two_each)
    assert measured["CLIPSIM"].value == pytest.approx(np.mean(expected), abs=2e-3)
    real = (found + similarity(clip.features(made), np.repeat(clip.texts(["a"]), 3, 0))).mean() / 2
    assert measured["CLIPSIM / real"].value == pytest.approx(found.mean() / real, rel=1e-6)


def test_openais_own_file_is_a_torchscript_and_gives_the_same_features(files, tmp_path):
    """It holds the same tensors in half precision, and three sizes among them."""

    class Archive(nn.Module):
        def forward(self, x):
            return x

    archive = Archive()
    for name, value in torch.load(files.clip, weights_only=True).items():
        *path, last = name.split(".")
        place = archive
        for part in path:
            if part not in dict(place.named_children()):
                place.add_module(part, nn.Module())
            place = getattr(place, part)
        place.register_buffer(last, value)
    archive.register_buffer("input_resolution", torch.tensor(32))
    torch.jit.trace(archive, torch.zeros(1)).save(tmp_path / "openai.pt")
    theirs = CLIP.load(tmp_path / "openai.pt", sha256(tmp_path / "openai.pt"), "tiny", CPU)
    ours = CLIP.load(files.clip, files.clip_sha256, "tiny", CPU)
    assert np.array_equal(theirs.features(clips(1)), ours.features(clips(1)))


def test_frames_are_resized_as_pillow_does():
    noise = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3), np.uint8)
    for size in (24, 96):
        theirs = [np.asarray(Image.fromarray(f[:, 10:60]).resize((size, size), Image.BICUBIC)) for f in noise]
        assert np.abs(square(noise, size) - np.stack(theirs).astype(int)).max() <= 1
    assert np.array_equal(square(noise[:, :, 10:60], 50), noise[:, :, 10:60])
    assert square(noise, 24, crop=False).shape == (2, 24, 24, 3)


def test_an_interrupted_run_goes_on(files, tmp_path):
    settings = replace(files, features=tmp_path, inception=None)
    made, real = list(clips(7)), list(clips(7, seed=1))
    whole = measure(made, CAPTIONS, real, replace(settings, features=None))
    with pytest.raises(KeyboardInterrupt):
        measure(Counting(made, fails_at=3), CAPTIONS, real, settings)
    again = Counting(made)
    assert measure(again, CAPTIONS, real, settings) == whole and again.requested == [3, 6]
    third = Counting(made)
    assert measure(third, CAPTIONS, real, settings) == whole and third.requested == []
    other = Counting(made, label="of another seed")
    measure(other, CAPTIONS, real, replace(settings, clip=None))
    assert other.requested == [0, 3, 6]
    flipped = {path: flip(path) for path in tmp_path.glob("*.npz")}
    with pytest.warns(UserWarning, match="damaged.*computed again"):
        assert flipped and measure(made, CAPTIONS, real, settings) == whole


def test_kept_features_of_another_kind_are_computed_again(tmp_path):
    network = SimpleNamespace(identity="means", features=lambda pixels: pixels.mean((1, 2, 3)))
    settings, made = FullScaleSettings(features=tmp_path, size=40, frames=10, batch=3), clips(6)
    found = lambda: full_scale.extract(made, {"i3d": network}, settings)["i3d"]
    whole = found()
    first, second = sorted(tmp_path.glob("*.npz"))
    for other in (whole[:2], whole[:3].astype(int), whole[:3] * np.nan, whole[:3, 0], whole[:3, None]):
        np.savez_compressed(first, values=other)
        with pytest.warns(UserWarning, match="damaged .expected floating .3, d.|damaged .numbers that are not finite"):
            assert np.array_equal(found(), whole)
    np.savez_compressed(second, values=whole[3:, :2])
    with pytest.raises(UserError, match="expected features of i3d of one width in .*, found 2 and 3; remove i3d-"):
        found()


def test_a_stop_says_where_the_features_are(tmp_path):
    def stop(pixels):
        raise KeyboardInterrupt

    settings = FullScaleSettings(features=tmp_path, size=40, frames=10, batch=3)
    with pytest.raises(KeyboardInterrupt, match="what is done is kept in .*; the same command goes on"):
        full_scale.extract(clips(3), {"i3d": SimpleNamespace(identity="means", features=stop)}, settings)


def flip(path):
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_video_files_are_read_when_they_are_asked_for(files, tmp_path):
    made, only = clips(3), replace(files, inception=None, clip=None, features=tmp_path / "kept")
    paths = [Clip(clip).save(tmp_path / f"{i}.webp") for i, clip in enumerate(made)]  # lossless
    of_files = lambda: measure(Videos(paths), CAPTIONS[:3], clips(3, seed=1), only)["FVD"]
    before = of_files()
    assert before == measure(made, CAPTIONS[:3], clips(3, seed=1), only)["FVD"] == of_files()
    Clip(made[0] // 2).save(paths[0])
    assert of_files() != before  # another file of that name is another clip
    paths[1].unlink()
    with pytest.raises(UserError, match="expected 3 videos, found 1 missing, first .*1.webp"):
        Videos(paths)


def test_a_metric_without_its_file_is_left_out_with_a_line(files):
    with pytest.warns(UserWarning) as caught:
        measured = measure(clips(3), CAPTIONS[:3], clips(3), replace(files, inception=None, clip=None))
    assert list(measured) == ["FVD", "KVD"]
    left_out = [str(one.message).split(":")[0] for one in caught]
    assert left_out == ["FID-vid", "FID-vid (CLIP)", "CLIPSIM", "CLIPSIM / real"]
    assert "i3d_torchscript.pt" in full_scale.skipped(FullScaleSettings())["FVD"]


@pytest.mark.parametrize("change, message", [
    ({"i3d_sha256": "0" * 64}, "i3d: expected .* with sha256 0000"),
    ({"i3d_sha256": None}, "i3d: expected the sha256"),
    ({"i3d": "nowhere.pt"}, "expected an existing file, found nowhere.pt"),
    ({"i3d": "clip", "i3d_sha256": "clip_sha256"}, "expected a TorchScript"),
    ({"clip": "i3d", "clip_sha256": "i3d_sha256"}, "clip: expected weights of tiny"),
    ({"clip_model": "ViT-nothing"}, "expected a model of open_clip, found 'ViT-nothing'"),
    ({"inception": "clip", "inception_sha256": "clip_sha256"}, "inception: expected torch-fidelity's weights"),
    ({"device": "abacus"}, "device: expected"),
])  # fmt: skip
def test_a_file_that_is_not_the_one_meant_is_refused_by_name(files, change, message):
    change = {key: getattr(files, value) if value in vars(files) else value for key, value in change.items()}
    with pytest.raises(UserError, match=message):
        full_scale.load(replace(files, **change))


def test_wrong_clips_are_refused(files):
    only = replace(files, inception=None, clip=None)
    for several, captions, message in (
        (clips(3), CAPTIONS[:2], "as many captions, found 3 and 2"),
        (clips(3)[:, :9], CAPTIONS[:3], r"expected clips uint8 \(10, H, W, 3\).*\(9, 40, 40, 3\) as clip 0"),
        (clips(3) / 255, CAPTIONS[:3], "found float64"),
    ):
        with pytest.raises(UserError, match=message):
            measure(several, captions, clips(3), only)
    with pytest.raises(UserError, match="I3D needs clips of 10 frames or more, found 9"):
        I3D.load(files.i3d, files.i3d_sha256, CPU).features(clips(1)[:, :9])


def test_the_interval_of_the_ratio_covers_the_truth():
    """Simulated: cosines that share what a caption does to both clips."""
    covered = 0
    for seed in range(400):
        generator = np.random.default_rng(seed)
        shared = generator.normal(0.3, 0.1, 60)
        x, real = (shared + generator.normal(shift, 0.02, 60) for shift in (0, -0.05))
        estimate = ratio_estimate(list(x), real)
        covered += estimate.low <= 0.3 / 0.25 <= estimate.high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.skipif("MINIT2V_I3D" not in os.environ, reason="the file i3d_torchscript.pt is not named by MINIT2V_I3D")
def test_the_real_i3d_gives_the_published_distance_of_black_from_white():
    i3d = I3D.load(os.environ["MINIT2V_I3D"], os.environ.get("MINIT2V_I3D_SHA256"), CPU)
    assert self_test(i3d) == pytest.approx(SELF_TEST, abs=TOLERANCE)


def test_the_self_test_is_the_closed_form_on_a_network_that_is_known(files):
    """Black is -1 and white +1 in three colours; the other features are 0 for both: 3 x 2²."""
    i3d = I3D.load(files.i3d, files.i3d_sha256, CPU)
    assert self_test(i3d) == pytest.approx(12)
    with pytest.raises(UserError, match="i3d: expected black clips 151.26 ± 0.5 away from white ones, found 12.00"):
        checked_self_test(i3d)
