"""Clips go to disk and come back; a failed write leaves nothing; mistakes are told in one line."""

import io

import numpy as np
import pytest
from PIL import Image

from minit2v.errors import UserError
from minit2v.video import SUFFIXES, Clip, check_output


def disc(frames=16, height=48, width=64, still=0):
    """A soft bright disc that moves right over a dark ground; the last `still` frames are equal."""
    y, x = np.mgrid[:height, :width]
    times = np.minimum(np.arange(frames), frames - 1 - still)
    cover = [np.clip(9 - np.hypot(x - 12 - 2 * t, y - 24), 0, 1)[..., None] for t in times]
    return np.stack([20 + c * np.array([200, 180, 190]) for c in cover]).astype(np.uint8)


@pytest.mark.parametrize("suffix, decibel", [(".mp4", 32), (".gif", 38), (".webp", 99)])
@pytest.mark.parametrize("fps", [8, 12.5])
def test_save_and_load(tmp_path, suffix, decibel, fps):
    pixels = disc(still=3)                                    # equal frames must not get lost
    path = Clip(pixels, fps).save(tmp_path / f"clip{suffix}")
    back = Clip.load(path)
    assert back.pixels.shape == pixels.shape and back.fps == pytest.approx(fps, rel=0.01)
    error = np.mean((back.pixels.astype(float) - pixels) ** 2)
    assert 10 * np.log10(255**2 / (error + 1e-9)) > decibel
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_gif_plays_for_ever_at_the_right_speed(tmp_path):
    with Image.open(Clip(disc(), 8).save(tmp_path / "clip.gif")) as image:
        durations = [image.seek(i) or image.info["duration"] for i in range(image.n_frames)]
        assert image.info["loop"] == 0 and sum(durations) == 2000 and set(durations) == {120, 130}


def test_mp4_is_what_browsers_play(tmp_path):
    import av

    path = Clip(disc(), 8).save(tmp_path / "clip.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")          # the index comes first


def test_notebooks_show_a_moving_picture():
    data, size = Clip(disc())._repr_png_()
    assert Image.open(io.BytesIO(data)).n_frames == 16 and size == {"width": 256, "height": 192}


def test_strip_is_evenly_spaced():
    pixels = disc()
    strip = Clip(pixels).strip(4)
    assert strip.shape == (48, 4 * 64, 3) and strip.dtype == np.uint8
    for place, frame in enumerate((0, 5, 10, 15)):
        assert (strip[:, place * 64:(place + 1) * 64] == pixels[frame]).all()
    with pytest.raises(UserError, match="1 to 16 frames, found n=17"):
        Clip(pixels).strip(17)


@pytest.mark.parametrize("pixels", [None, disc().astype(float), disc()[0], disc()[..., :1], disc()[:0]])
def test_pixels_are_checked(pixels):
    with pytest.raises(UserError, match=r"uint8 \(f, H, W, 3\).*found"):
        Clip(pixels)


@pytest.mark.parametrize("fps", [0, -8, 101, float("nan")])
def test_fps_is_checked(fps):
    with pytest.raises(UserError, match="fps"):
        Clip(disc(), fps)


def test_odd_sizes_are_refused_for_mp4_only(tmp_path):
    odd = Clip(disc(height=33, width=31))
    with pytest.raises(UserError, match="even width and height, found 31x33"):
        odd.save(tmp_path / "clip.mp4")
    assert Clip.load(odd.save(tmp_path / "clip.gif")).pixels.shape == (16, 33, 31, 3)


@pytest.mark.parametrize("name, message", [
    ("clip.avi", "ending in .mp4 or .gif or .webp"),
    ("clip", "ending in .mp4"),
    ("missing/clip.mp4", "no .*missing; make it first"),
    ("folder.mp4", "found the folder"),
    ("/proc/clip.gif", "cannot write in the folder /proc"),   # read-only even for root
])
def test_output_is_checked_before_the_work(tmp_path, name, message):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UserError, match=message) as caught:
        check_output(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.mp4"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_full_disk_leaves_nothing_and_keeps_the_old_file(tmp_path, suffix):
    resource = pytest.importorskip("resource", reason="needs limits of POSIX systems")
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(b"old")
    noise = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))         # no file can grow beyond 4 kB
    try:
        with pytest.raises(UserError, match="could not write .*free some space"):
            Clip(noise).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files_are_refused(tmp_path, suffix):
    path = Clip(disc()).save(tmp_path / f"clip{suffix}")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="clip"):
        Clip.load(path)
    with pytest.raises(UserError, match="existing file"):
        Clip.load(tmp_path / f"other{suffix}")
