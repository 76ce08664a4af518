"""Clips: frames and a frame rate, with the way to disk and to the screen.

    pixels uint8 (f, H, W, 3)  --save-->  .mp4  H.264, small, plays everywhere   (PyAV, which brings its own FFmpeg)
                               --save-->  .gif  256 colours a frame, loops       (Pillow)
                               --save-->  .webp lossless, loops                  (Pillow)
                               --show-->  animated PNG: a notebook plays it as an ordinary picture
                               --strip->  one picture, n frames side by side
    .mp4 .mov .mkv .webm .avi .m4v .gif .webp .png .jpg  --load-->  pixels, upright, at an even frame rate

A file appears under its name only when it is complete: it is written beside its place and moved there at the end.
`Footage` reads any file by its time stamps and decodes only the frames that are asked for.

References: H.264 in mp4, `crf` and `+faststart`: https://trac.ffmpeg.org/wiki/Encode/H.264; animated PNG:
https://www.w3.org/TR/png-3/; rotation of a video: `av_display_rotation_get` of FFmpeg's libavutil/display.h.
"""

import io
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import numpy as np

from minit2v.errors import UserError
from minit2v.files import atomic, check_writable, refuse_pointer
from minit2v.ranges import Length, Number, Place, Range, Size, public, shown

SUFFIXES = (".mp4", ".gif", ".webp")  # what a clip is saved as
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
ANIMATED = (".gif", ".webp")  # a picture, or several that move
PICTURES = (".png", ".jpg", ".jpeg")  # read as clips of one frame
READABLE = VIDEOS + ANIMATED + PICTURES
FASTEST = {".gif": 50, ".webp": 90, ".mp4": 1000}  # fps; browsers show a picture of 10 ms or less for 100 ms
LARGEST_FRAME = 2**26  # pixels of a frame, 8192 x 8192: more is an attack on the memory, or a mistake
LARGEST_CLIP = 2**29  # pixels of all frames of a clip, 1.6 GB, which reading holds twice
SLOWEST = 30  # seconds that opening a file or reading from it may take: a few bytes can ask for hours of work
SHOWN_WIDTH = 256  # pixels on the screen of a notebook; small clips are shown enlarged to it
PICTURE_FPS = 8.0  # of a clip of one picture


@dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """A short silent video: a sequence of frames, uint8 (H, W, 3).

    >>> clip = Clip(np.zeros((16, 64, 64, 3), np.uint8), fps=8)
    >>> clip
    Clip(16 frames of 64x64, 8 fps)
    >>> len(clip), clip[0].shape, clip[:4].shape, np.asarray(clip).shape
    (16, (64, 64, 3), (4, 64, 64, 3), (16, 64, 64, 3))
    >>> clip.strip(4).shape
    (64, 256, 3)
    """

    pixels: np.ndarray  # uint8 (f, H, W, 3), red green blue, 0..255
    fps: float = 8  # frames a second; mini and modelscope-1.7b: 8

    def __post_init__(self):
        shape, dtype = getattr(self.pixels, "shape", None), getattr(self.pixels, "dtype", None)
        if shape is None or len(shape) != 4 or shape[3] != 3 or 0 in shape or dtype != np.uint8:
            raise UserError(f"a clip needs pixels uint8 (f, H, W, 3), none of them 0; found {dtype} {shape}")
        if not Range(0, 1000, above=True).holds(self.fps, whole=False):
            raise UserError(f"a clip needs 0 < fps <= 1000 frames a second, found {shown(self.fps)}")

    def __repr__(self):
        f, H, W, _ = self.pixels.shape
        return f"Clip({f} frame{'s' * (f > 1)} of {W}x{H}, {self.fps:g} fps)"

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, which):
        return self.pixels[which]

    def __iter__(self):
        return iter(self.pixels)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.pixels, dtype) if copy else np.asarray(self.pixels, dtype)

    def _repr_png_(self):
        f, H, W, _ = self.pixels.shape
        scale = max(1, SHOWN_WIDTH // W)
        file = io.BytesIO()
        _save_frames(file, "PNG", self.pixels, [1000 / self.fps] * f)
        return file.getvalue(), {"width": W * scale, "height": H * scale}

    @public
    def strip(self, n: Size = 8):
        """n frames, evenly spaced from the first to the last, side by side: uint8 (H, n*W, 3)."""
        if not 1 <= n <= len(self):
            raise UserError(f"a strip of this clip has 1 to {len(self)} frames, found n={n}")
        from minit2v.pixels import evenly  # imports torch, which takes a second

        return np.concatenate(list(self.pixels[evenly(len(self), n)]), axis=1)  # n x (H W 3) -> (H, n*W, 3)

    @public
    def save(self, path: Place):
        """Write the clip to `path` (.mp4, .gif or .webp by its suffix) and return the path.

        Raises UserError for a path that cannot be written, for a full disk, for an mp4 of odd width or height, and for
        more frames a second than the kind of file can show; then nothing is left behind and an older file of that name
        is untouched.
        """
        path = check_output(path)
        check_shown(path, *self.pixels.shape[1:3], self.fps)
        suffix = path.suffix.lower()
        with atomic(path) as unfinished:
            if suffix == ".mp4":
                _save_mp4(unfinished, self.pixels, self.fps)
            else:
                _save_animation(unfinished, suffix, self.pixels, self.fps)
        return path

    @classmethod
    @public
    def load(cls, path: Place):
        """The clip in a file of VIDEOS or ANIMATED, or a picture as a clip of one frame, in any format of READABLE.

        Frames of uneven length become a clip of even frame rate, in which a longer one is repeated.
        Raises UserError for a missing, foreign or damaged file, and for more than LARGEST_CLIP pixels.
        """
        footage = Footage(path)
        times, fps = footage.even()
        return cls(np.stack(footage.at(times)), fps)


def check_shown(path, height, width, fps):
    """Raises UserError if a file of this suffix cannot show such a clip; to be called before the work."""
    suffix = Path(path).suffix.lower()
    if suffix == ".mp4" and (height % 2 or width % 2):  # its colours have half the resolution
        raise UserError(f".mp4 needs an even width and height, found {width}x{height}; crop it, or save a .gif or .webp")
    if fps > FASTEST[suffix]:
        raise UserError(f"a {suffix} shows at most {FASTEST[suffix]} frames a second, found {fps:g}; save an .mp4, or "
                        "leave frames out")  # fmt: skip


@public
def check_output(path: Place, suffixes=SUFFIXES):
    """The path as a Path if a file of one of these suffixes can be written there; to be called before the work.

    Raises UserError for an unknown suffix, a folder, a missing folder around it, and a place that cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"expected an output file, found the folder {path}; name a file in it")
    if path.suffix.lower() not in suffixes:
        raise UserError(f"expected an output file ending in {' or '.join(suffixes)}, found {str(path)!r}")
    if not path.parent.is_dir():
        raise UserError(f"expected an existing folder for {path}, found no {path.parent}; make it first")
    check_writable(path)
    return path


class Footage:
    """The frames of a video or picture file, and when each is shown; pixels are decoded when they are asked for.

        edges  0.0   0.1       0.3  0.4 s      frame i is shown from edges[i] to edges[i + 1]
               ├──0──┼────1────┼──2─┤

    edges: seconds (f + 1,), from 0. size: width and height in pixels, as stored. nominal: frames a second as the file
    states them, or None. Raises UserError for a missing, foreign or damaged file, for frames of more than
    LARGEST_FRAME pixels, and once reading takes more than SLOWEST seconds.
    """

    @public
    def __init__(self, path: Place):
        self.path = Path(path)
        if self.path.suffix.lower() not in READABLE or not self.path.is_file():
            raise UserError(f"expected an existing file ending in {', '.join(READABLE)}, found {path}")
        kind = _Video if self.path.suffix.lower() in VIDEOS else _Pictures
        with _readable(self.path):
            self._frames = kind(self.path)
            self.edges, self.size, self.nominal = self._frames.edges, self._frames.size, self._frames.nominal

    @property
    def interval(self) -> float:
        """How long a typical frame is shown, in seconds."""
        return float(self._frames.typical(np.diff(self.edges)))

    def even(self) -> tuple[np.ndarray, float]:
        """Times of frames at an even rate, in seconds, and that rate in frames a second.

        Each frame has one time if the rate is even; else one that is shown n times as long as a typical one has n.
        Raises UserError for more than LARGEST_CLIP pixels.
        """
        edges, (width, height) = self.edges, self.size
        n, end = len(edges) - 1, edges[-1]
        even = np.abs(edges - np.linspace(0, end, n + 1)).max() < end / n / 4  # mkv rounds to 1 ms, gif to 10 ms
        fps = min(n / end if even else 1 / self.interval, 1000.0)
        if even and self.nominal and abs(self.nominal / fps - 1) < 0.02:
            fps = self.nominal  # not rounded
        count = n if even else max(1, round(end * fps))
        if count * max(width * height, 1024) > LARGEST_CLIP:
            raise UserError(f"{self.path}: expected a clip of at most {LARGEST_CLIP:,} pixels, found {count} frames of "
                            f"{width}x{height}; cut it, or make it smaller")  # fmt: skip
        return (edges[:-1] + edges[1:]) / 2 if even else (np.arange(count) + 0.5) / fps, fps

    @public
    def at(self, times: Annotated[Sequence[Number], Length(1, 2**31)], change: Callable = lambda pixels: pixels) -> list[np.ndarray]:
        """The frames shown at increasing `times`, in seconds: uint8 (H, W, 3), or what `change` makes of each."""
        with _readable(self.path):
            found, shown = [], None
            for start, pixels in _timely(self._frames.decoded(times[0]), self.path):
                while shown and len(found) < len(times) and times[len(found)] < start:
                    found.append(change(shown[1]()))
                if len(found) == len(times):
                    return found
                shown = start, pixels
            if shown is None or shown[0] < self.edges[-2] - 2 * self.interval:
                raise ValueError(f"its frames end before {self.edges[-2]:g} s")
            return found + [change(shown[1]())] * (len(times) - len(found))


class _Video:
    """Frames of a video file, by FFmpeg; see `Footage`."""

    typical = staticmethod(np.median)

    def __init__(self, path: Path):
        self.path = path
        with _video(path) as (container, stream):
            seen = [p for p in _timely(container.demux(stream), path) if p.dts is not None or p.pts is not None]
            stamps = {p.dts if p.pts is None else p.pts: p.duration for p in seen if not p.is_discard}
            promised, self.base = stream.frames, stream.time_base
            self.nominal = stream.average_rate and float(stream.average_rate)
            self.size = _checked(stream.codec_context.width, stream.codec_context.height)
        starts = sorted(stamps)
        if not starts or promised > len(seen):
            raise ValueError(f"it has {len(seen)} frames, its header states {promised}")
        self.first, last = starts[0], starts[-1]
        usual = self.typical(np.diff(starts)) if len(starts) > 1 else 1 / (self.nominal or PICTURE_FPS) / self.base
        ends = np.array([*starts, last + max(stamps[last] or 0, usual)], float)  # its own may be 1 tick, or 0
        self.edges = (ends - self.first) * float(self.base)

    def decoded(self, since: float) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
        """(start in seconds, function that gives the pixels) of each frame, from one shown at `since` or before."""
        with _video(self.path) as (container, stream):
            if since > 2:  # seconds; nearer ones are faster decoded than sought
                container.seek(self.first + int(since / self.base), stream=stream)
            for number, frame in enumerate(container.decode(stream)):
                start = float((frame.pts - self.first) * self.base)
                if number == 0 and start > since > 2:  # a bad index: from the beginning then
                    yield from self.decoded(0)
                    return
                yield start, lambda frame=frame, aspect=stream.sample_aspect_ratio: _upright(frame, aspect)


@public
def stated(path: Place) -> tuple[int, float]:
    """Frames and frames a second as the header of a video states them, for when thousands are asked.

    Raises UserError for a damaged file, and for a header that states neither frames nor a duration.
    """
    import av

    with _readable(path), _video(Path(path)) as (container, stream):
        fps = float(stream.average_rate)
        return stream.frames or int(container.duration / av.time_base * fps), fps


@contextmanager
def _video(path: Path):
    """The container of a video and its stream."""
    import av

    # a text file can be a playlist of other files and addresses: only these containers, and only files, are opened
    options = {"protocol_whitelist": "file", "format_whitelist": "mov,matroska,webm,avi"}
    with av.open(str(path.resolve()), options=options) as container:
        stream = container.streams.best("video")
        if stream is None:
            raise ValueError("it has no video")
        stream.codec_context.options = {"max_pixels": str(LARGEST_FRAME)}
        yield container, stream


def _upright(frame, aspect: Fraction | None) -> np.ndarray:
    """Pixels uint8 (H, W, 3) of a decoded frame, square and turned as the file asks for.

    Of the display matrix (a b u; c d v; x y w) the point (x, y) goes to (a x + c y, b x + d y).
    """
    width, _ = _checked(round(frame.width * (aspect or 1)), frame.height)
    pixels = frame.to_ndarray(format="rgb24", width=width)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(b) > abs(a):  # a quarter turn: rows become columns
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


class _Pictures:
    """Frames of a picture or an animation, by Pillow; see `Footage`.

    Pillow merges equal neighbours into one frame that lasts longer, and these files round its time. So a clip's file
    bears a note of how many frames it has and how fast they are.
    """

    typical = staticmethod(np.min)  # so that none is left out
    nominal = None

    def __init__(self, path: Path):
        self.path = path
        with self._opened() as image:
            self.size = image.size
            moves = path.suffix.lower() in ANIMATED
            count = getattr(image, "n_frames", 1) if moves else 1
            if count * image.width * image.height > LARGEST_CLIP:
                raise ValueError(f"it has {count} frames of {image.width}x{image.height}")
            stored = np.concatenate([[0.0], np.cumsum([_seconds(image, i) for i in _timely(range(count), path)])])
            self.edges = stored if moves else np.array([0, 1 / PICTURE_FPS])
            if moves and (note := _noted(image)):
                frames, fps = note
                if count == 1 or abs(frames / fps - stored[-1]) < 0.02:
                    self.edges, self.nominal = np.arange(frames + 1) / fps, fps
        middles = (self.edges[:-1] + self.edges[1:]) / 2
        self.stored = np.searchsorted(stored, middles, "right").clip(1, count) - 1  # which stored frame is shown

    def decoded(self, since: float) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
        with self._opened() as image:
            for start, number in zip(self.edges, self.stored, strict=False):
                image.seek(int(number))
                yield float(start), lambda pixels=_rgb(image): pixels

    @contextmanager
    def _opened(self):
        from PIL import Image

        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(self.path, formats=("GIF", "WEBP", "PNG", "JPEG"))  # others run programs
        with image:
            _checked(*image.size)
            yield image


def _seconds(image, number: int) -> float:
    """How long a frame of an animation is shown."""
    image.seek(number)
    image.load()  # a webp knows the time only then
    return (image.info.get("duration") or 100) / 1000  # 0 or none: what browsers take


def _noted(image) -> tuple[int, float] | None:
    """Frames and frames a second, from the note of `_save_animation`."""
    image.seek(0)
    text = image.getexif().get(DESCRIPTION) or image.info.get("comment", b"")
    text = text.decode("latin-1") if isinstance(text, bytes) else str(text)
    found = re.fullmatch(r"minit2v: (\d{1,6}) frames, (\d{1,3}(?:\.\d{1,20})?(?:e-\d\d)?) fps", text)
    return (int(found[1]), float(found[2])) if found and int(found[1]) and float(found[2]) else None


def _rgb(image) -> np.ndarray:
    """Pixels uint8 (H, W, 3) of Pillow's image, upright, over black where it is transparent."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        grey = (np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)  # (H W) -> (H W 3)
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "black")
        ground.alpha_composite(image.convert("RGBA"))
        image = ground
    return np.asarray(image.convert("RGB"))


def _checked(width: int, height: int) -> tuple[int, int]:
    """Raises ValueError for a frame that is too large to be decoded, or empty."""
    if not 0 < width * height <= LARGEST_FRAME:
        raise ValueError(f"its frames are {width}x{height}")
    return width, height


def _timely(frames: Iterable, path: Path) -> Iterator:
    """The same frames. Raises UserError once they have taken more than SLOWEST seconds, of the clock and of the processor:
    a machine that is busy, or other threads, do not make a file slow."""
    clock, processor = time.monotonic(), time.process_time()
    for frame in frames:
        if min(time.monotonic() - clock, time.process_time() - processor) > SLOWEST:
            raise UserError(f"{path}: expected a file that is read in {SLOWEST} s, found one that takes longer; cut it, or "
                            "make it smaller")  # fmt: skip
        yield frame


@contextmanager
def _readable(path: Path):
    """Whatever FFmpeg or Pillow raise over a stranger's bytes is one line that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        with suppress(OSError):
            refuse_pointer(Path(path))
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"expected a video or a picture, found {path} damaged or of another kind: {reason}") from error


def _save_mp4(path, pixels, fps):
    import av

    try:
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:  # plays while still loading
            stream = container.add_stream("libx264", rate=max(Fraction(fps).limit_denominator(1001), Fraction(1, 1001)), options={"crf": "10"})
            stream.height, stream.width = pixels.shape[1:3]
            stream.pix_fmt = "yuv420p"  # the only one that every browser plays
            for frame in pixels:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            container.mux(stream.encode())  # the frames that the encoder still holds
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error


DESCRIPTION = 0x010E  # tag of Exif


def _save_animation(file, suffix, pixels, fps):
    """A .gif or .webp with the note that `_noted` reads."""
    from PIL import Image

    note = f"minit2v: {len(pixels)} frames, {float(fps)} fps"
    exif = Image.Exif()
    exif[DESCRIPTION] = note
    extra, tick = ({"comment": note.encode()}, 10) if suffix == ".gif" else ({"exif": exif, "lossless": True}, 1)
    _save_frames(file, suffix[1:].upper(), pixels, _durations(len(pixels), fps, tick), **extra)


def _save_frames(file, kind, pixels, durations, **options):
    """An animated GIF (the best 256 colours of each frame by median cut), WEBP or PNG that loops; durations in ms."""
    from PIL import Image

    first, *others = [Image.fromarray(frame) for frame in pixels]
    first.save(file, kind, save_all=True, append_images=others, duration=durations, loop=0, **options)


def _durations(frames, fps, tick):
    """Durations in ms, multiples of `tick`, whose sum is right: 120, 130, 120, … of ticks of 10 at 8 fps."""
    ends = np.round(1000 / tick * np.arange(frames + 1) / fps).astype(int)
    return [int(tick * duration) for duration in np.diff(ends)]
