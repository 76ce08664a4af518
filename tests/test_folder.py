"""A folder of videos and pictures is a data set: what it shows, how it is split, and what it refuses in one line."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from test_video import CODECS, COLOURS, QUARTERS, grey, turn, write_animation, write_video

from minit2v.cli import main
from minit2v.datasets import Dataset, VideoText, find_data
from minit2v.datasets import folder as folders
from minit2v.datasets.folder import FolderData, divide
from minit2v.datasets.metadata import Item, read_captions
from minit2v.errors import UserError
from minit2v.evaluation.report import chosen_data, described
from minit2v.pixels import fitted
from minit2v.video import Clip

ROWS = [{"file_name": "a.mp4", "text": "a dog"}, {"file_name": "b.mp4", "text": "two cats, both run"}]


def clip(path, values=range(0, 160, 10), fps=8):
    return Clip(grey(values, 16, 16), fps).save(path)


def make(folder, names, frames=16, split=None):
    """A folder of plain clips and pictures with metadata.jsonl; item i is called "item i" and has brightness 5 i."""
    rows = []
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.fromarray(grey([5 * i], 16, 16)[0]).save(path)
        else:
            clip(path, [5 * i] * frames)
        rows.append({"file_name": name, "text": f"item {i}"} | ({"split": split(i)} if split else {}))
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Every format: videos of 2 s, whose brightness is their time in 1/100 s, and pictures of four colours; 48 x 32."""
    folder, rows = tmp_path_factory.mktemp("mixed"), []
    values = np.arange(48) / 24 * 100
    for suffix in CODECS:
        write_video(folder / f"video{suffix}", grey(values), np.arange(48) / 24)
    for suffix in (".gif", ".webp"):
        write_animation(folder / f"video{suffix}", values[::2], [80, 90] * 12)  # 12 fps, rounded
    for name in ("picture.png", "picture.jpg", "picture.jpeg", "still.gif", "still.webp"):
        Image.fromarray(COLOURS[QUARTERS]).save(folder / name, quality=95)
    for path in sorted(folder.iterdir()):
        rows.append({"file_name": path.name, "text": f"a {path.suffix[1:]} file"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def everything(data, frames=16, height=16, width=24, images=False):
    """{caption: frames} of all splits."""
    found = {}
    for split in ("train", "val", "test"):
        items = data.open(split, frames, height, width, images)
        assert isinstance(items, VideoText)
        pixels, captions, specs = items.batch(range(len(items)))
        assert pixels.dtype == np.uint8 and specs is None
        found |= dict(zip(captions, pixels, strict=True))
    return found


def test_every_format_is_read_at_the_wanted_rate(mixed):
    data = find_data(mixed)
    assert isinstance(data, Dataset) and data.test_splits == ("test",)
    clips = everything(data)
    assert set(clips) == {f"a {suffix} file" for suffix in ("mp4", "mov", "m4v", "mkv", "webm", "avi", "gif", "webp")}
    for caption, pixels in clips.items():
        assert pixels.shape == (16, 16, 24, 3)
        step = 100 / 12 if caption in ("a gif file", "a webp file") else 100 / 24  # a frame of the file
        shown = np.floor((12.5 * np.arange(16) + 0.5) / step) * step
        tolerance = 12 if "avi" in caption else 4  # its codec is lossy
        assert np.abs(pixels.mean((1, 2, 3)) - shown).max() < tolerance, caption
    pictures = everything(data, images=True)
    assert set(pictures) == {"a png file", "a jpg file", "a jpeg file", "a gif file", "a webp file"}
    for pixels in pictures.values():
        assert pixels.shape == (1, 16, 24, 3)
        assert np.abs(pixels[0, [4, 4, 12, 12], [6, 18, 6, 18]].astype(int) - COLOURS).max() < 30


def test_the_middle_of_a_long_video_is_shown_by_its_time_stamps(tmp_path):
    starts = np.cumsum([0] + [0.1, 0.3, 0.05, 0.35, 0.2] * 20)  # 20 s of frames of five lengths
    values = np.arange(len(starts)) * 2
    for name in ("a.mp4", "b.webm", "c.mp4"):
        write_video(tmp_path / name, grey(values), starts)
    (tmp_path / "captions.tsv").write_text("a.mp4\ta\nb.webm\tb\nc.mp4\tc\n")
    found = everything(FolderData(tmp_path, fps=4), frames=8)
    end = starts[-1] + np.median(np.diff(starts))
    times = (end - 2) / 2 + np.arange(8) / 4
    for pixels in found.values():
        near = [values[(starts > time - 0.001) & (starts < time + 0.07) | (starts == starts[starts <= time].max())]
                for time in times]  # the frame shown then, or one that begins right after
        assert all(np.abs(allowed - mean).min() < 2 for allowed, mean in zip(near, pixels.mean((1, 2, 3)), strict=True))


def test_frames_are_cropped_or_padded_and_turned_upright(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        turn(write_video(tmp_path / name, np.stack([COLOURS[QUARTERS]] * 16), np.arange(16) / 8), 0, 1, -1, 0)
    (tmp_path / "captions.tsv").write_text("a.mp4\ta\nb.mp4\tb\nc.mp4\tc\n")
    upright = np.rot90(COLOURS[QUARTERS], -1)[None]
    for fit in ("crop", "pad"):
        expected = fitted(upright, 16, 16, fit)[0]
        for pixels in everything(FolderData(tmp_path, fit=fit), 16, 16, 16).values():
            assert np.abs(pixels[0].astype(int) - expected).mean() < 4
    black = everything(FolderData(tmp_path, fit="pad"), 16, 16, 16)["a"][:, :, [0, -1]]
    assert black.max() < 3


def test_evaluation_opens_a_folder_as_training_did(tmp_path, capsys):
    """`--set fit=pad` is an option of `evaluate` as of `train`, else the model's clips are held against other ones."""
    for name in ("a.webp", "b.webp"):
        Clip(np.full((16, 16, 32, 3), 200, np.uint8), 8).save(tmp_path / name)
    (tmp_path / "captions.tsv").write_text("a.webp\ta wall\nb.webp\ta wall\n")
    for fit, edge in (("crop", 200), ("pad", 0)):
        wall = chosen_data(tmp_path, 8, {"fit": fit}).open("train", 8, 16, 16).batch([0]).frames[0]
        assert (wall[:, 0] == edge).all() and (wall[:, 8] == 200).all()
    assert described(FolderData(tmp_path), {"fit": "pad"}) == f"{tmp_path.name}, fit=pad"
    for part in ([], ["--part", "autoencoder"]):
        evaluate = ["evaluate", "--data", str(tmp_path), *part]
        assert main([*evaluate, "--set", "fit=stretch"]) == 2 and "expected crop or pad" in capsys.readouterr().err
        assert main([*evaluate, "--set", "level=R"]) == 2 and "expected options of fit" in capsys.readouterr().err
        assert main(evaluate) == 2 and "expected videos in a split test" in capsys.readouterr().err  # two are too few
    assert main(["evaluate", "--clips", str(tmp_path), "--captions", "c.tsv", "--set", "fit=pad"]) == 2
    assert "--set: expected without --clips" in capsys.readouterr().err


@pytest.mark.parametrize("height, width", [(90, 60), (40, 120), (31, 47), (60, 60), (1, 4000)])
def test_fitting_keeps_proportions_and_the_centre(height, width):
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(x + 0.5 - width / 2, y + 0.5 - height / 2) < min(height, width) / 4  # a disc in the middle
    frames = np.repeat((inside * np.uint8(200))[None, ..., None], 3, axis=3)
    for fit, part in (("crop", 1 / 4), ("pad", min(height, width) / max(height, width) / 4)):
        new = fitted(frames, 60, 60, fit)
        assert new.shape == (1, 60, 60, 3) and new.dtype == np.uint8
        cover = new[0, ..., 0] / 200
        if height > 1:
            assert cover.sum() == pytest.approx(np.pi * (60 * part) ** 2, rel=0.05)
            for axis in (0, 1):
                assert cover.sum(axis) @ (np.arange(60) + 0.5) / cover.sum() == pytest.approx(30, abs=0.6)
    with pytest.raises(UserError, match="fit: expected crop or pad, found 'stretch'"):
        fitted(frames, 8, 8, "stretch")


def test_short_clips_and_files_without_caption_are_named_and_left_out(tmp_path):
    make(tmp_path, ["a.mp4", "b.mp4", "c.mp4", "long/d.mp4"])
    clip(tmp_path / "b.mp4", range(15))
    clip(tmp_path / "silent.gif")
    with pytest.warns(UserWarning, match=r"left out for want of a caption: silent.gif$"):
        data = FolderData(tmp_path)
    with pytest.warns(UserWarning, match=r"shorter than 16 frames at 8 a second: b.mp4$"):
        assert set(everything(data)) == {"item 0", "item 2", "item 3"}
    assert len(everything(data, frames=15)) == 4
    with pytest.warns(UserWarning), pytest.raises(UserError, match="videos of 17 frames in the split train, found no"):
        data.open("train", 17, 16, 16)


def test_without_pictures_the_middle_frames_of_the_same_clips_are_the_pictures(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        clip(tmp_path / name)
    (tmp_path / "captions.tsv").write_text("a.mp4\ta\nb.mp4\tb\nc.mp4\tc\n")
    data = FolderData(tmp_path)
    for split in ("train", "val", "test"):
        clips, pictures = (data.open(split, 16, 16, 16, images=images).batch([0]) for images in (False, True))
        assert clips.captions == pictures.captions
        assert np.abs(pictures.frames[0, 0].astype(int) - clips.frames[0, 8]).max() < 3


def test_a_file_keeps_its_split_when_others_are_added():
    names = [f"{i}.mp4" for i in range(1000)]
    before = divide([Item(name, "") for name in names[:400]])
    after = divide([Item(name, "") for name in names])
    assert {name: after[name] for name in names[:400]} == before
    counts = {split: list(after.values()).count(split) for split in ("train", "val", "test")}
    assert counts["train"] == pytest.approx(900, abs=30) and min(counts.values()) > 30
    for i in range(99):
        few = {n: sorted(divide([Item(name, "") for name in names[i:i + n]]).values()) for n in (1, 2, 3)}
        assert few == {1: ["train"], 2: ["train", "val"], 3: ["test", "train", "val"]}


def test_captions_of_one_file_stay_in_one_split(tmp_path):
    make(tmp_path, [f"{i}.mp4" for i in range(6)])
    rows = [{"file_name": f"{i}.mp4", "text": f"{word} {i}"} for word in ("first", "second") for i in range(6)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = FolderData(tmp_path)
    for split in ("train", "val", "test"):
        items = data.open(split, 16, 16, 16)
        said = [caption.split() for caption in items.captions]
        assert {n for word, n in said if word == "first"} == {n for word, n in said if word == "second"}


def test_splits_are_those_of_the_column_or_of_the_folders(tmp_path):
    wanted = ["train"] * 3 + ["validation"] + ["test"] * 2
    column = FolderData(make(tmp_path / "column", [f"{i}.mp4" for i in range(6)], split=wanted.__getitem__))
    places = FolderData(make(tmp_path / "places", [f"{split}/{i}.mp4" for i, split in enumerate(wanted)]))
    for data in (column, places):
        said = {split: data.open(split, 16, 16, 16).captions for split in ("train", "val", "test")}
        assert said == {"train": ["item 0", "item 1", "item 2"], "val": ["item 3"], "test": ["item 4", "item 5"]}
    for split in ("train", "test"):  # each with its own metadata
        make(tmp_path / "own" / split, [f"{i}.mp4" for i in range(8)])
    own = FolderData(tmp_path / "own")
    sizes = {split: len(own.open(split, 16, 16, 16)) for split in ("train", "val", "test")}
    assert sizes == {"train": 7, "val": 1, "test": 8} and own.test_splits == ("test",)
    without = FolderData(make(tmp_path / "without", ["train/0.mp4", "val/1.mp4"]))
    assert without.test_splits == ()
    with pytest.raises(UserError, match="in the split test, found some in train, val alone; add files"):
        without.open("test", 16, 16, 16)
    with pytest.raises(UserError, match="expected videos of 99 frames in the split train, found none; add files"):
        without.open("train", 99, 16, 16)
    with pytest.raises(UserError, match="expected a folder of videos with captions, found no folder .*nowhere"):
        FolderData(tmp_path / "nowhere")


LAYOUTS = {
    "metadata.jsonl": "\n".join(map(json.dumps, ROWS)),
    "metadata.csv": 'file_name,text\r\na.mp4,a dog\r\nb.mp4,"two cats, both run"\r\n',
    "captions.tsv": "a.mp4\ta dog\n\nb.mp4\ttwo cats,  both run",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_captions_are_read_in_every_layout_and_encoding(tmp_path, name, encoding):
    (tmp_path / name).write_bytes(LAYOUTS[name].encode(encoding))
    assert read_captions(tmp_path / name) == [("a.mp4", "a dog"), ("b.mp4", "two cats, both run")]


@pytest.mark.parametrize("name, text, message", [
    ("metadata.jsonl", '{"file_name": "a.mp4"}', "a file_name and a text in line 1 of .*, found file_name 'a.mp4'; write both"),
    ("metadata.jsonl", '{"file_name": "a.mp4", "text": 3}', "a file_name and a text in line 1"),
    ("metadata.jsonl", "\n[1, 2]", r"a text in line 2 of .*, found \[1, 2\]"),
    ("metadata.jsonl", "a.mp4", "expected JSON in line 1"),
    ("metadata.jsonl", "[" * 100_000, "expected JSON in line 1"),
    ("metadata.jsonl", r'{"file_name": "a.mp4", "text": "\ud800 "}', "a file_name and a text in line 1"),
    ("metadata.jsonl", '{"file_name": "a.mp4", "text": "a", "split": ["x"]}', "expected a split of train, val.*line 1"),
    ("metadata.csv", "file;text\na.mp4;a", "found no file_name and no text in 'file;text'"),
    ("metadata.csv", "file_name,text\na.mp4,a dog, running", "expected 2 values in line 2 .*found more; put quotes"),
    ("metadata.csv", 'file_name,text\na.mp4,"a\0', "expected text in UTF-8 or UTF-16|expected the columns file_name and text"),
    ("captions.tsv", "a.mp4 a dog", "expected FILE<tab>CAPTION in line 1 of .*found 'a.mp4 a dog'"),
    ("captions.tsv", "\n", "found none; write a line for each file"),
    ("captions.tsv", "/etc/passwd\ta", "expected a file below the folder .*found '/etc/passwd'"),
    ("captions.tsv", "b/../../a.mp4\ta", "expected a file below the folder"),
    ("captions.tsv", "ab\0.mp4\ta", "expected text in UTF-8 or UTF-16"),
    ("captions.tsv", "a" * 5000 + ".mp4\ta", "expected the 1 files that its captions name, found no"),
    ("captions.tsv", "captions.tsv\ta", "expected files ending in .mp4.*found captions.tsv"),
    ("captions.tsv", "a.mp4\ta\nc.mp4\ta", "expected the 2 files that its captions name, found no c.mp4"),
    ("captions.tsv", "a.mp4\ta\ntrain/b.mp4\tb", "expected a split for every file or for none, found none for a.mp4"),
    ("other.txt", "a.mp4\ta", "expected captions in .*metadata.jsonl or metadata.csv or captions.tsv, found none"),
])  # fmt: skip
def test_captions_that_cannot_be_used_are_refused_in_one_line(tmp_path, name, text, message):
    make(tmp_path, ["a.mp4", "train/b.mp4"])
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        FolderData(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 6000


@pytest.mark.parametrize("text", ["a.mp4\ta dog\n", "日本.mp4\ta dog\n", "a.mp4\t一只狗\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_captions_in_any_unicode_of_the_day_are_read(tmp_path, text, encoding):
    path = tmp_path / "captions.tsv"
    path.write_bytes(text.encode(encoding))
    assert read_captions(path) == [tuple(text.rstrip("\n").split("\t"))]


@pytest.mark.parametrize("name, text, message", [
    ("captions.tsv", "a.mp4\ta dog\n".encode("utf-32-le"), "found zeros, as in UTF-32; save it as UTF-8"),
    ("captions.tsv", b"a.mp4\t\n", "expected a file_name and a text in line 1 .*, found file_name 'a.mp4', text ''"),
    ("metadata.csv", b"file_name;text\na.mp4;a\n", "separated by commas, found no file_name and no text in 'file_name;text'"),
    ("metadata.csv", b"file_name,caption\na.mp4,a\n", "found no text in 'file_name, caption'"),
])  # fmt: skip
def test_captions_say_what_is_missing(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(UserError, match=message):
        read_captions(tmp_path / name)


def test_a_space_after_a_comma_is_no_part_of_a_name(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name, text\na.mp4, a dog\n")
    assert read_captions(tmp_path / "metadata.csv") == [("a.mp4", "a dog")]


def test_captions_in_no_known_encoding_or_twice_are_refused(tmp_path):
    (tmp_path / "captions.tsv").write_bytes("a.mp4\tein Hündchen".encode("latin-1"))
    with pytest.raises(UserError, match="expected text in UTF-8 or UTF-16 in .*captions.tsv, found .* at byte"):
        FolderData(tmp_path)
    (tmp_path / "metadata.csv").write_text(LAYOUTS["metadata.csv"])
    with pytest.raises(UserError, match="found metadata.csv and captions.tsv; keep one"):
        FolderData(tmp_path)
    with pytest.raises(UserError, match="found no .*none.tsv"):
        read_captions(tmp_path / "none.tsv")
    make(tmp_path / "both", ["a.mp4"])
    rows = [{"file_name": "a.mp4", "text": "a", "split": split} for split in ("train", "test")]
    (tmp_path / "both" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match="expected one split for a.mp4, found two"):
        FolderData(tmp_path / "both")


def test_neither_a_name_nor_a_folder_is_named_with_what_there_is(tmp_path):
    with pytest.raises(UserError, match="data set of moving-things, moving-things-zh or a folder .*, found 'no-such'"):
        find_data("no-such")
    make(tmp_path, ["a.mp4"])
    with pytest.raises(UserError, match="expected options of fit, found level"):
        find_data(tmp_path, level=2)
    with pytest.raises(UserError, match="fit: expected crop or pad, found 'stretch'"):
        find_data(tmp_path, fit="stretch")
    with pytest.raises(UserError, match="moving-things: expected options of level, found fit"):
        find_data("moving-things", fit="pad")
    with pytest.raises(UserError, match="fps: expected"):
        find_data(tmp_path, fps=0)
    assert find_data(tmp_path, fit=None).fit == "crop" and find_data("moving-things", level="2").level == 2


def test_whatever_changes_an_item_changes_the_identity(tmp_path):
    make(tmp_path, ["a.mp4", "b.png"])
    path, identity = tmp_path / "a.mp4", FolderData(tmp_path).identity()
    assert FolderData(tmp_path).identity() == identity
    found = {identity, FolderData(tmp_path, fps=4).identity(), FolderData(tmp_path, fit="pad").identity()}
    stamp = path.stat().st_mtime_ns
    os.utime(path, ns=(stamp, stamp + 1))
    found.add(FolderData(tmp_path).identity())
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(stamp, stamp))
    found.add(FolderData(tmp_path).identity())
    captions = tmp_path / "metadata.jsonl"
    captions.write_text(captions.read_text().replace("item 0", "item 9"))
    found.add(FolderData(tmp_path).identity())
    assert len(found) == 6


def test_damaged_files_are_named(tmp_path):
    make(tmp_path, ["a.mp4", "b.mp4", "c.mp4", "d.png"])
    (tmp_path / "b.mp4").write_text("no video")
    with pytest.raises(UserError, match="b.mp4 damaged or of another kind") as caught:
        FolderData(tmp_path).open("train", 16, 16, 16)
    assert "\n" not in str(caught.value)
    clip(tmp_path / "b.mp4")
    (tmp_path / "d.png").write_bytes((tmp_path / "d.png").read_bytes()[:60])
    with pytest.raises(UserError, match="d.png damaged or of another kind"):
        FolderData(tmp_path).open("train", 16, 16, 16, images=True).batch([0])


def test_the_words_are_those_of_the_captions(tmp_path):
    make(tmp_path, ["a.mp4", "b.mp4"])
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    assert FolderData(tmp_path).words() == ["a", "both", "cats", "dog", "run", "two"]


def test_frames_are_decoded_once_while_they_fit_and_items_end(tmp_path, monkeypatch):
    items = FolderData(make(tmp_path, [f"{i}.mp4" for i in range(6)])).open("train", 16, 8, 8)
    decoded = []
    monkeypatch.setattr(folders, "read_clip", lambda *args: decoded.append(args) or np.zeros((16, 8, 8, 3), np.uint8))
    items.batch([0, 1, 1, 0])
    assert len(decoded) == 2
    for index in (len(items), -1):
        with pytest.raises(IndexError):
            items.batch([index])
