"""MSR-VTT's protocols on annotations of its size, and its reading on a folder in its layout."""

import json
import shutil

import numpy as np
import pytest

from minit2v.datasets.msrvtt import MSRVTT, PROTOCOLS, Protocol, read_annotations, select
from minit2v.errors import UserError
from minit2v.evaluation.full_scale.extraction import extract
from minit2v.evaluation.full_scale.settings import FullScaleSettings
from minit2v.video import Clip


def layout(n=2990, captions=20, extra=7):
    """MSR-VTT's annotations with n test clips, and some that belong to another split."""
    ids = [f"video{7010 + i}" for i in range(n)]
    videos = [{"video_id": name, "split": "test", "url": ""} for name in ids]
    videos += [{"video_id": f"video{i}", "split": "train"} for i in range(extra)]
    sentences = [{"video_id": video["video_id"], "caption": f"{video['video_id']} says  {i}", "sen_id": i}
                 for i in range(captions) for video in videos]  # fmt: skip
    return {"videos": videos, "sentences": sentences, "info": {}}


@pytest.fixture(scope="session")
def annotated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("annotated")
    (folder / "videos").mkdir()
    (folder / "test_videodatainfo.json").write_text(json.dumps(layout()))
    return read_annotations(folder, Protocol())


def test_protocols_count_what_they_should(annotated):
    assert list(annotated)[0] == "video7010" and list(annotated)[-1] == "video9999"
    found = {name: select(annotated, Protocol(name)) for name in PROTOCOLS}
    prompts = {name: [text for several in chosen.values() for text in several] for name, chosen in found.items()}
    assert {name: len(chosen) for name, chosen in found.items()} == {
        "one-caption": 2990, "all-captions": 2990, "2048-clips": 2048}  # fmt: skip
    assert {name: len(texts) for name, texts in prompts.items()} == {
        "one-caption": 2990, "all-captions": 59800, "2048-clips": 2048}  # fmt: skip
    assert all(len(set(texts)) == len(texts) for texts in prompts.values())
    assert all(texts[0].startswith(name) for chosen in found.values() for name, texts in chosen.items())
    picked = [int(text.split()[-1]) for text in prompts["one-caption"]]
    assert np.bincount(picked, minlength=20).min() > 100  # random among all twenty


def test_the_draw_depends_on_the_seed_alone(annotated):
    one, same, other = (select(annotated, Protocol(seed=seed)) for seed in (3, 3, 4))
    assert one == same and set(one) != set(other)
    assert len(set(one) & set(other)) < 1600  # of 2,048, by chance 1,403
    with pytest.raises(UserError, match="expected 2048 clips or more, found 2; set a smaller n"):
        select({name: annotated[name] for name in list(annotated)[:2]}, Protocol())


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Six clips of 6 s at 15 fps in MSR-VTT's layout, 48x32; a frame's brightness is its number. One lasts 4 s."""
    folder = tmp_path_factory.mktemp("msrvtt")
    (folder / "videos").mkdir()
    (folder / "test_videodatainfo.json").write_text(json.dumps(layout(6, 2)))
    for i, count in enumerate((91, 91, 91, 60, 91, 91)):
        pixels = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None] * 2, (count, 32, 48, 3)).copy()
        pixels[:, :, :8] = pixels[:, :, -8:] = 255  # outside the centre square
        Clip(pixels, fps=15).save(folder / "videos" / f"video{7010 + i}.mp4")
    return folder


def test_real_clips_are_the_middle_frames_at_the_rate_of_the_protocol_cropped_to_the_square(folder):
    data = MSRVTT(folder, Protocol("one-caption", size=32))
    assert data.left_out == ["video7013"] and "video7013" not in data.videos and len(data) == len(data.prompts) == 5
    pixels = data[1:3]
    assert pixels.shape == (2, 16, 32, 32, 3) and pixels.dtype == np.uint8
    brightness = pixels[0, :, :, 4:-4].mean((1, 2, 3)) / 2  # of these 91 frames at 15 fps: every fifth around number 45
    assert brightness == pytest.approx(45 + 5 * (np.arange(16) - 7.5) - 0.5, abs=2)
    assert np.array_equal(data[1], pixels[0]) and data.reported()["left_out"] == ["video7013"]
    own = MSRVTT(folder, Protocol("all-captions", size=16, fps=None, crop=False))
    assert own.left_out == [] and own.prompts[:2] == ["video7010 says 0", "video7010 says 1"] and len(own.prompts) == 12
    assert np.diff(own[0][:, 8, 8, 0].astype(float)).mean() == pytest.approx(2, abs=0.3)  # frame by frame
    assert own[0].mean() > data[0].mean() + 30 and own.label != data.label  # the white borders are in


def test_further_clips_are_those_that_were_not_chosen(folder):
    data = MSRVTT(folder, Protocol("one-caption", n=2, size=32))
    further, again = data.further(3), data.further(3)
    assert len(further) == 3 and further.videos == again.videos
    assert not set(further.videos) & {*data.videos, "video7013"}
    assert further[:2].shape == (2, 16, 32, 32, 3) and further.label != data.label
    assert data.further(4) is None and MSRVTT(folder, Protocol("one-caption")).further(1) is None


def test_what_is_kept_of_clips_does_not_outlive_them(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    data = MSRVTT(tmp_path / "copy", Protocol("one-caption", size=32))
    before = data.label
    shutil.copy(folder / "videos/video7013.mp4", tmp_path / "copy/videos" / f"{data.videos[0]}.mp4")
    assert data.label != before


def test_features_are_taken_from_the_real_clips_a_part_at_a_time(folder):
    class Brightness:
        identity = "mean over every frame"

        def features(self, pixels):
            return pixels.mean((2, 3, 4))  # (b f H W 3) -> (b f)

    data = MSRVTT(folder, Protocol("one-caption", size=32, seed=2))
    found = extract(data, {"brightness": Brightness()}, FullScaleSettings(size=32, batch=2))
    assert found["brightness"] == pytest.approx(np.stack([clip.mean((1, 2, 3)) for clip in data]))


def test_another_layout_is_refused_in_one_line(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    copy, protocol = tmp_path / "copy", Protocol("one-caption")
    file = copy / "test_videodatainfo.json"
    (copy / "videos/video7012.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match="video7012.mp4 damaged"):
        MSRVTT(copy, protocol)
    (copy / "videos/video7012.mp4").unlink()
    with pytest.raises(UserError, match="expected 6 clips in .*videos, found 1 missing, first video7012.mp4"):
        MSRVTT(copy, protocol)
    silent = layout(6, 2)
    silent["sentences"] = [one for one in silent["sentences"] if one["video_id"] != "video7011"]
    for text, message in (
        ("[1, 2]", "expected 'videos'.*another layout"), ("{", "another layout"), ('{"videos": [3]}', "another layout"),
        (json.dumps(layout(0)), "split test .*no clip of it"), (json.dumps(silent), "found no caption of video7011"),
    ):  # fmt: skip
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            MSRVTT(copy, protocol)
    file.unlink()
    with pytest.raises(UserError, match="found no test_videodatainfo.json; name the folder that has both"):
        MSRVTT(copy, protocol)
    for change in ({"name": "some"}, {"fps": 0}, {"frames": 0}, {"n": 2.5}):
        with pytest.raises(UserError, match="protocol: expected"):
            Protocol(**change)
