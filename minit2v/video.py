"""Clips: frames and a frame rate, with the way to disk and to the screen.

    pixels uint8 (f, H, W, 3)  --save-->  .mp4  H.264, small, plays everywhere   (PyAV, which brings its own FFmpeg)
                               --save-->  .gif  256 colours a frame, loops       (Pillow)
                               --save-->  .webp lossless, loops                  (Pillow)
                               --show-->  animated PNG: a notebook plays it as an ordinary picture
                               --strip->  one picture, n frames side by side

A file appears under its name only when it is complete: it is written beside its place and moved there at the end.

References: H.264 in mp4, `crf` and `+faststart`: https://trac.ffmpeg.org/wiki/Encode/H.264; animated PNG:
https://www.w3.org/TR/png-3/.
"""

import io
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from minit2v.errors import UserError
from minit2v.files import atomic

SUFFIXES = (".mp4", ".gif", ".webp")
PICTURES = (".png", ".jpg", ".jpeg")  # read only: clips of one frame
SHOWN_WIDTH = 256  # pixels on the screen of a notebook; small clips are shown enlarged to it


@dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """A short silent video.

    >>> clip = Clip(np.zeros((16, 64, 64, 3), np.uint8), fps=8)
    >>> clip
    Clip(16 frames of 64x64, 8 fps)
    >>> clip.strip(4).shape
    (64, 256, 3)
    """

    pixels: np.ndarray  # uint8 (f, H, W, 3), red green blue, 0..255
    fps: float = 8  # frames a second; mini and modelscope-1.7b: 8

    def __post_init__(self):
        shape, dtype = getattr(self.pixels, "shape", None), getattr(self.pixels, "dtype", None)
        if shape is None or len(shape) != 4 or shape[3] != 3 or 0 in shape or dtype != np.uint8:
            raise UserError(f"a clip needs pixels uint8 (f, H, W, 3), none of them 0; found {dtype} {shape}")
        if not 0 < self.fps <= 100:  # a GIF counts time in hundredths of a second
            raise UserError(f"a clip needs 0 < fps <= 100 frames a second, found {self.fps}")

    def __repr__(self):
        f, H, W, _ = self.pixels.shape
        return f"Clip({f} frame{'s' * (f > 1)} of {W}x{H}, {self.fps:g} fps)"

    def _repr_png_(self):
        f, H, W, _ = self.pixels.shape
        scale = max(1, SHOWN_WIDTH // W)
        file = io.BytesIO()
        _save_frames(file, "PNG", self.pixels, [1000 / self.fps] * f)
        return file.getvalue(), {"width": W * scale, "height": H * scale}

    def strip(self, n=8):
        """n frames, evenly spaced from the first to the last, side by side: uint8 (H, n*W, 3)."""
        if not 1 <= n <= len(self.pixels):
            raise UserError(f"a strip of this clip has 1 to {len(self.pixels)} frames, found n={n}")
        chosen = np.linspace(0, len(self.pixels) - 1, n).round().astype(int)
        return np.concatenate(list(self.pixels[chosen]), axis=1)  # n x (H W 3) -> (H, n*W, 3)

    def save(self, path):
        """Write the clip to `path` (.mp4, .gif or .webp by its suffix) and return the path.

        Raises UserError for a path that cannot be written, for a full disk, and for an mp4 of odd width or height;
        then nothing is left behind and an older file of that name is untouched.
        """
        path = check_output(path)
        H, W = self.pixels.shape[1:3]
        if path.suffix.lower() == ".mp4" and (H % 2 or W % 2):  # its colours have half the resolution
            raise UserError(f".mp4 needs an even width and height, found {W}x{H}; crop it, or save a .gif or .webp")
        with atomic(path) as unfinished:
            if path.suffix.lower() == ".mp4":
                _save_mp4(unfinished, self.pixels, self.fps)
            else:
                kind = path.suffix[1:].upper()
                _save_frames(unfinished, kind, self.pixels, _centiseconds(len(self.pixels), self.fps))
        return path

    @classmethod
    def load(cls, path):
        """The clip in an .mp4, .gif or .webp file, or the picture in a .png or .jpg as a clip of one frame.

        Raises UserError for a missing, foreign or damaged file.
        """
        import av

        path, known = Path(path), SUFFIXES + PICTURES
        if path.suffix.lower() not in known or not path.is_file():
            raise UserError(f"expected an existing file ending in {', '.join(known)}, found {path}")
        try:
            return cls(*(_load_mp4(path) if path.suffix.lower() == ".mp4" else _load_frames(path)))
        except (OSError, ValueError, IndexError, av.FFmpegError) as error:
            raise UserError(f"expected a video, found {path} damaged or of another kind: {error}") from error


def check_output(path, suffixes=SUFFIXES):
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
    try:
        tempfile.TemporaryFile(dir=path.parent).close()  # surer than reading permission bits
    except OSError as error:
        raise UserError(f"cannot write in the folder {path.parent} ({error.strerror}); choose another place") from error
    return path


def _save_mp4(path, pixels, fps):
    import av

    try:
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:  # plays while still loading
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "10"})
            stream.height, stream.width = pixels.shape[1:3]
            stream.pix_fmt = "yuv420p"  # the only one that every browser plays
            for frame in pixels:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            container.mux(stream.encode())  # the frames that the encoder still holds
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error


def _load_mp4(path):
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), float(stream.average_rate)


def _save_frames(file, kind, pixels, durations):
    """An animated GIF (the best 256 colours of each frame by median cut), WEBP or PNG that loops; durations in ms."""
    from PIL import Image

    first, *others = [Image.fromarray(frame) for frame in pixels]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    first.save(file, kind, save_all=True, append_images=others, duration=durations, loop=0, **lossless)


def _load_frames(path):
    """Pillow merges equal neighbours into one frame that lasts longer; here it becomes several again."""
    from PIL import Image, ImageSequence

    with Image.open(path) as image:
        frames, durations = [], []
        for frame in ImageSequence.Iterator(image):
            frames.append(np.asarray(frame.convert("RGB")))
            durations.append(frame.info.get("duration") or 100)  # ms; 0 or none: what browsers take
    times = np.maximum(1, np.round(np.array(durations) / min(durations))).astype(int)
    return np.repeat(np.stack(frames), times, axis=0), 1000 * times.sum() / sum(durations)


def _centiseconds(frames, fps):
    """Durations in ms, multiples of 10 (GIF knows no finer), whose sum is right: 120, 130, 120, ... at 8 fps."""
    ends = np.round(100 * np.arange(frames + 1) / fps).astype(int)
    return [int(10 * duration) for duration in np.diff(ends)]
