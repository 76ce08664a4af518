"""Clips go to disk and come back; strangers' files are read by their time stamps; mistakes are one line."""

import io
import struct
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from minit2v import video
from minit2v.errors import UserError
from minit2v.video import READABLE, SUFFIXES, VIDEOS, Clip, Footage, check_output, stated

CODECS = {".mp4": "libx264", ".mov": "libx264", ".m4v": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9",
          ".avi": "mpeg4"}  # fmt: skip


def disc(frames=16, height=48, width=64, still=0):
    """A soft bright disc that moves right over a dark ground; the last `still` frames are equal."""
    y, x = np.mgrid[:height, :width]
    times = np.minimum(np.arange(frames), frames - 1 - still)
    cover = [np.clip(9 - np.hypot(x - 12 - 2 * t, y - 24), 0, 1)[..., None] for t in times]
    return np.stack([20 + c * np.array([200, 180, 190]) for c in cover]).astype(np.uint8)


def grey(values, height=32, width=48):
    """One plain frame for each value."""
    return np.broadcast_to(np.reshape(values, (-1, 1, 1, 1)), (len(values), height, width, 3)).astype(np.uint8)


def write_video(path, pixels, starts, aspect=None):
    """A video as other programs write it: frame i begins at starts[i] seconds, rounded to milliseconds."""
    with av.open(str(path), "w", format="mp4" if path.suffix == ".m4v" else None) as container:
        rate = round(1 / np.diff(starts).mean()) if path.suffix == ".avi" else 30  # an .avi has no time stamps
        stream = container.add_stream(CODECS[path.suffix], rate=rate)
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:3], "yuv420p"
        if path.suffix != ".avi":
            stream.codec_context.time_base = Fraction(1, 1000)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for frame, start in zip(pixels, starts, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            if path.suffix != ".avi":
                frame.pts, frame.time_base = round(start * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path, a, b, c, d):
    """Writes a display matrix into an .mp4, as phones do: (x, y) is shown at (a x + c y, b x + d y)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at:at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def write_animation(path, values, durations, **options):
    """A gif or webp of other programs; durations in ms."""
    first, *others = [Image.fromarray(frame) for frame in grey(values, 8, 8)]
    first.save(path, save_all=True, append_images=others, duration=durations, **options)
    return path


def brightness(clip):
    return clip.pixels.mean((1, 2, 3)).round().astype(int).tolist()


FAST = [(suffix, fps) for suffix in SUFFIXES for fps in (0.5, 8, 12.5, 33.3, 40, 50)] + [(".webp", 90), (".mp4", 240)]


@pytest.mark.parametrize("still", [3, 15])  # equal frames must not get lost
@pytest.mark.parametrize("suffix, fps", FAST)
def test_what_is_written_is_read_back(tmp_path, suffix, fps, still):
    pixels, decibel = disc(still=still), {".mp4": 32, ".gif": 38, ".webp": 99}[suffix]
    path = Clip(pixels, fps).save(tmp_path / f"clip{suffix}")
    back = Clip.load(path)
    assert back.pixels.shape == pixels.shape and back.fps == pytest.approx(fps, rel=1e-3)
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


@pytest.mark.parametrize("fps", [0, -8, 1001, float("nan")])
def test_fps_is_checked(fps):
    with pytest.raises(UserError, match="fps"):
        Clip(disc(), fps)


def test_a_gif_is_not_written_faster_than_it_plays(tmp_path):
    for suffix, fps in ((".gif", 60), (".webp", 120)):
        with pytest.raises(UserError, match=f"frames a second, found {fps}; save an .mp4"):
            Clip(disc(), fps).save(tmp_path / f"clip{suffix}")
    assert not list(tmp_path.iterdir())


def test_a_clip_is_a_sequence_of_frames():
    pixels = disc()
    clip = Clip(pixels)
    assert len(clip) == 16 and clip[0].shape == (48, 64, 3) and clip[2:5].shape == (3, 48, 64, 3)
    assert all(np.array_equal(frame, pixels[i]) for i, frame in enumerate(clip))
    assert np.array_equal(np.asarray(clip), pixels) and np.asarray(clip, float).dtype == float
    assert np.array_equal(np.stack([clip, clip]), np.stack([pixels, pixels]))


@pytest.mark.parametrize("suffix", VIDEOS)
def test_videos_of_other_programs_are_read(tmp_path, suffix):
    values = np.arange(10, 250, 20)
    clip = Clip.load(write_video(tmp_path / f"clip{suffix}", grey(values), np.arange(12) / 30))
    assert clip.pixels.shape == (12, 32, 48, 3) and clip.fps == pytest.approx(30, rel=0.01)
    assert np.abs(brightness(clip) - values).max() <= 5


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_uneven_frames_are_shown_at_their_times(tmp_path, suffix):
    starts = np.array([0, 0.1, 0.2, 0.5, 0.55, 0.6, 1.2, 1.3, 1.4, 2.0, 2.1, 2.2])
    values = np.arange(10, 250, 20)
    path = write_video(tmp_path / f"clip{suffix}", grey(values), starts)
    clip = Clip.load(path)
    assert clip.fps == pytest.approx(10, rel=0.01) and len(clip) == 23
    shown = [values[np.searchsorted(starts, time, "right") - 1] for time in (np.arange(23) + 0.5) / 10]
    assert np.abs(brightness(clip) - np.array(shown)).max() <= 4
    times = [0.05, 0.3, 0.56, 1.15, 1.25, 2.25]
    found = [frame.mean().round() for frame in Footage(path).at(times)]
    assert np.abs(found - values[[0, 2, 4, 5, 6, 11]]).max() <= 4


def test_the_middle_of_a_long_video_is_the_same_sought_or_decoded_from_the_start(tmp_path):
    values = np.arange(0, 240) % 120 * 2
    for suffix in (".mp4", ".webm"):
        footage = Footage(write_video(tmp_path / f"clip{suffix}", grey(values, 16, 16), np.arange(240) / 24))
        found = [frame.mean().round() for frame in footage.at(np.arange(7, 9, 0.25) + 0.01)]
        assert np.abs(found - values[168:216:6]).max() <= 4


@pytest.mark.parametrize("name, durations, values, shown, fps", [
    ("even.gif", [20, 30] * 8, range(0, 160, 10), list(range(0, 160, 10)), 40),  # 40 fps, rounded to 1/100 s
    ("even.webp", [33, 33, 34] * 4, range(0, 120, 10), list(range(0, 120, 10)), 30),
    ("long.gif", [300, 300, 100], (10, 90, 200), [10] * 3 + [90] * 3 + [200], 10),
    ("long.webp", [100, 300], (10, 200), [10, 200, 200, 200], 10),
    ("none.gif", [0, 0, 0], (10, 90, 200), [10, 90, 200], 10),  # what browsers take
])  # fmt: skip
def test_animations_of_other_programs_are_read_by_their_times(tmp_path, name, durations, values, shown, fps):
    options = {"lossless": True} if name.endswith("webp") else {}
    clip = Clip.load(write_animation(tmp_path / name, values, durations, **options))
    assert brightness(clip) == shown and clip.fps == pytest.approx(fps, rel=0.02)


def test_a_note_that_does_not_agree_with_the_times_is_not_believed(tmp_path):
    for note in ("minit2v: 900000 frames, 40.0 fps", "minit2v: 0 frames, 8.0 fps", "minit2v: 4 frames, 0.0 fps", "hi"):
        clip = Clip.load(write_animation(tmp_path / "clip.gif", (10, 90), [100, 100], comment=note.encode()))
        assert brightness(clip) == [10, 90] and clip.fps == 10


QUARTERS = np.kron([[0, 1], [2, 3]], np.ones((16, 24), int))  # 0 upper left, 1 upper right, 2 lower left, 3 lower right
COLOURS = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200], [120, 120, 120]], np.uint8)
WAYS = {"upright": (1, 0, 0, 1), "turned right": (0, 1, -1, 0), "upside down": (-1, 0, 0, -1),
        "turned left": (0, -1, 1, 0), "mirrored": (-1, 0, 0, 1), "mirrored and turned": (0, 1, 1, 0)}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_turned_video_is_shown_upright(tmp_path, way):
    a, b, c, d = WAYS[way]
    path = turn(write_video(tmp_path / "clip.mp4", np.stack([COLOURS[QUARTERS]] * 4), np.arange(4) / 8), a, b, c, d)
    frame = Clip.load(path)[0]
    assert frame.shape == ((32, 48, 3) if a else (48, 32, 3))
    for quarter, (x, y) in enumerate([(-1, -1), (1, -1), (-1, 1), (1, 1)]):  # from the middle of the picture
        x, y = a * x + c * y, b * x + d * y
        H, W, _ = frame.shape
        middle = frame[H * (2 + y) // 4 , W * (2 + x) // 4]
        assert np.abs(middle.astype(int) - COLOURS[quarter]).max() < 12, (quarter, x, y)


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    path = write_video(tmp_path / "clip.mp4", np.stack([COLOURS[QUARTERS]] * 4), np.arange(4) / 8, Fraction(4, 3))
    assert Clip.load(path).pixels.shape == (4, 32, 64, 3)


@pytest.mark.parametrize("name", ["photo.jpg", "photo.jpeg", "photo.png", "photo.webp"])
def test_a_turned_photograph_is_shown_upright(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned left: to be shown turned right
    Image.fromarray(COLOURS[QUARTERS]).save(tmp_path / name, exif=exif, quality=95)
    clip = Clip.load(tmp_path / name)
    assert clip.pixels.shape == (1, 48, 32, 3)
    assert np.abs(clip[0][[12, 36]][:, [8, 24]].astype(int) - COLOURS[[[2, 0], [3, 1]]]).max() < 30


def test_pictures_of_16_bits_are_scaled_and_transparent_ones_lie_on_black(tmp_path):
    Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)).save(tmp_path / "deep.png")
    assert np.array_equal(Clip.load(tmp_path / "deep.png")[0][..., 1].ravel(), np.arange(256))
    clear = np.zeros((2, 2, 4), np.uint8)
    clear[..., 0], clear[..., 3] = 250, [[255, 51], [0, 0]]
    for name in ("clear.png", "clear.webp"):
        Image.fromarray(clear).save(tmp_path / name, lossless=True)
        assert Clip.load(tmp_path / name)[0][..., 0].tolist() == [[250, 50], [0, 0]]
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "bits.png")
    assert Clip.load(tmp_path / "bits.png")[0].tolist() == [[[0] * 3, [255] * 3]]


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
    ("/proc/clip.gif", "cannot write /proc/clip.gif"),   # read-only even for root
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
def test_half_a_file_is_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (16, 48, 64, 3), dtype=np.uint8)
    path = Clip(noise).save(tmp_path / f"clip{suffix}")
    for kept in (path.stat().st_size // 2, 200):
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(UserError, match=f"found .*clip{suffix} damaged"):
            Clip.load(path)
    with pytest.raises(UserError, match="existing file"):
        Clip.load(tmp_path / f"other{suffix}")


PLAYLISTS = {
    "text": b"hello\n" * 50, "nothing": b"", "concat": b"ffconcat version 1.0\nfile real.mp4\n",
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nreal.mp4\n#EXT-X-ENDLIST\n",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_text_is_no_video_whatever_its_name(tmp_path, kind):
    Clip(disc()).save(tmp_path / "real.mp4")  # which FFmpeg would open on behalf of a playlist
    for suffix in READABLE:
        (tmp_path / f"clip{suffix}").write_bytes(PLAYLISTS[kind])
        with pytest.raises(UserError, match=f"clip{suffix} damaged or of another kind") as caught:
            Clip.load(tmp_path / f"clip{suffix}")
        assert "\n" not in str(caught.value)


def test_a_container_without_frames_is_refused(tmp_path):
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        container.start_encoding()
    for ask in (Clip.load, stated):
        with pytest.raises(UserError, match="clip.mkv damaged"):
            ask(tmp_path / "clip.mkv")


def claim(path, at, form, width, height):
    """Overwrites the size that a picture's header states."""
    data = bytearray(path.read_bytes())
    data[at:at + struct.calcsize(form)] = struct.pack(form, width, height)
    if path.suffix == ".png":  # its header has a checksum
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


@pytest.mark.parametrize("width, height", [(60000, 60000), (10000, 9500), (9000, 9000)])  # Pillow: error, warning, none
@pytest.mark.filterwarnings("error")
def test_a_picture_that_claims_to_be_huge_is_not_decoded(tmp_path, width, height):
    for name, at, form in (("a.png", 16, ">II"), ("a.gif", 6, "<HH")):
        Image.fromarray(COLOURS[QUARTERS]).save(tmp_path / name)
        claim(tmp_path / name, at, form, width, height)
        with pytest.raises(UserError, match=f"{name} damaged or of another kind"):
            Clip.load(tmp_path / name)


def test_more_pixels_than_fit_in_memory_are_refused(tmp_path, monkeypatch):
    paths = [Clip(disc()).save(tmp_path / f"clip{suffix}") for suffix in SUFFIXES]
    slow = write_animation(tmp_path / "slow.gif", (10, 90, 200), [20, 655350, 20])
    monkeypatch.setattr(video, "LARGEST_CLIP", 48 * 64 * 15)
    for path in paths:
        with pytest.raises(UserError, match="16 frames of 64x48"):
            Clip.load(path)
    with pytest.raises(UserError, match="slow.gif: expected a clip of at most .* frames of 8x8; cut it"):
        Clip.load(slow)
    monkeypatch.setattr(video, "LARGEST_FRAME", 48 * 64 - 1)
    for path in paths:
        with pytest.raises(UserError, match="its frames are 64x48"):
            Clip.load(path)


class Clock:
    """Stands for `time`: each look finds it so many seconds later."""

    def __init__(self, clock, processor):
        self.now, self.ticks = {"monotonic": 0.0, "process_time": 0.0}, {"monotonic": clock, "process_time": processor}

    def __getattr__(self, name):
        self.now[name] += self.ticks[name]
        return lambda: self.now[name]


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_a_file_that_takes_too_long_is_left(tmp_path, monkeypatch, suffix):
    """Opened or decoded, it is left between two frames; a slow machine, on which only the clock goes on, takes its time."""
    path = Clip(grey(range(0, 240, 4)), 10).save(tmp_path / f"clip{suffix}")
    monkeypatch.setattr(video, "time", Clock(60, 0.01))
    footage = Footage(path)
    times, _ = footage.even()
    assert len(footage.at(times)) == 60
    monkeypatch.setattr(video, "time", Clock(1, 1))
    seen = []
    with pytest.raises(UserError, match=rf"clip{suffix}: expected a file that is read in 30 s, found one that takes longer; cut"):
        footage.at(times, seen.append)
    assert 25 < len(seen) < 35
    with pytest.raises(UserError, match="found one that takes longer"):
        Footage(path)
