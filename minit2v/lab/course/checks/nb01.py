"""Checks of notebook 01, Video is a tensor: two folds, differences, flicker, and a velocity that is read from pixels.

The references are loops that say what is meant, one number at a time; the solutions say the same in a few lines. Where a
result equals that of a well-known mistake, the check names the mistake.
"""

from itertools import product

import torch
from torch import Tensor

from minit2v.lab.course.comparing import called, recognised, same_dtype
from minit2v.lab.course.exercises import Failed, exercise
from minit2v.lab.course.questions import Question

_TESTS = "tests/test_ranges_and_folds.py::"
EQUATIONS = {
    "1.1": ("uint8 to [-1, 1]", _TESTS + "test_signed_pixels_are_exact_and_come_back"),
    "1.2": ("[-1, 1] to uint8", _TESTS + "test_what_is_cut_off_is_at_most_one_step_darker"),
    "1.3": ("frames seen as clips", _TESTS + "test_views_of_frames_and_clips_are_inverse"),
    "1.4": ("clips seen as frames", _TESTS + "test_views_of_frames_and_clips_are_inverse"),
    "1.5": ("centroid", _TESTS + "test_centroid_and_line_are_those_of_the_drawing"),
    "1.6": ("velocity", _TESTS + "test_centroid_and_line_are_those_of_the_drawing"),
}

QUIZ = [
    (
        "Two clips, x (2, 3, 16, 64, 64), go into a layer that looks within a frame. Which shape does it get?",
        ["(32, 3, 64, 64)", "(8192, 16, 3)", "(2, 48, 64, 64)"],
        0,
        "Frames become the batch: (b f) c h w with b f = 32. The second is what a layer along time gets: a batch of "
        "pixels. The third would make colours of different frames into channels.",
    ),
    (
        "With a batch of one everything is right; with two clips the videos are mixed. Where do you look first?",
        ["At the range of the numbers", "At the order of the names in a bracket, (b f) or (f b)", "At the frame rate"],
        1,
        "With b = 1 both orders are the same, so the mistake shows only with company. Test folds with sizes that are "
        "all different and larger than one.",
    ),
    (
        "Which clip gets zero both in the mean difference and in the flicker, and still does not show “a circle moves left”?",
        ["A shuffled one", "A reversed one", "A frozen one"],
        2,
        "Nothing changes in it, so nothing flickers. A measure of smoothness needs a measure of motion beside it.",
    ),
]

PREDICTIONS = {
    "1.a": Question("A clip has 16 frames of 256 by 256 pixels in colour. How many numbers does a computer hold for it?",
                    "3,145,728", ["196,608", "1,048,576", "3,145,728", "50,331,648"]),
    "1.b": Question("All 256 levels of a byte go to [-1, 1] in float32 and back. Fractions are cut off, not rounded. How many "
                    "levels come back as another one?", "about a quarter",
                    ["none", "one or two", "about a quarter", "about half"]),
    "1.c": Question("Frames lie in memory as (b f) c h w. One step makes (b f) h w c of them, another makes (b h w) f c. Which "
                    "of the two steps has to copy the numbers?", "the second", ["neither", "the first", "the second", "both"]),
    "1.d": Question("A large circle moves quickly over a plain ground. How many of the numbers of its clip are exactly the "
                    "same one frame later?", "more than nine in ten",
                    ["about a third", "about half", "about three quarters", "more than nine in ten"]),
    "1.e": Question("A clip is played backwards. Which of three instruments give another answer than before: the mean size of "
                    "the differences (exercise 1.2), the flicker (exercise 1.3), the velocity (exercise 1.4)?", "the velocity alone",
                    ["none", "the velocity alone", "the flicker and the velocity", "all three"]),
}  # fmt: skip


def _numbered(*shape, dtype):
    """All numbers from 0 on, each once, in an order that no sorting finds."""
    n = torch.Size(shape).numel()
    return torch.randperm(n, generator=torch.Generator().manual_seed(n)).to(dtype).reshape(shape)


def _told(mistakes, *inputs):
    """cause -> a function without arguments, as `recognised` wants them."""
    return {cause: (lambda wrong=wrong: wrong(*inputs)) for cause, wrong in mistakes.items()}


# --- 1.1


def to_time(frames: Tensor, f: int) -> Tensor:
    """Frames ((b f) c h w) as a batch of pixels ((b h w) f c), with reshape and permute alone."""
    n, c, h, w = frames.shape
    clips = frames.reshape(n // f, f, c, h, w)  # ((b f) c h w) -> (b f c h w)
    return clips.permute(0, 3, 4, 1, 2).reshape(-1, f, c)  # (b f c h w) -> (b h w f c) -> ((b h w) f c)


def to_time_by_loops(frames: Tensor, f: int) -> Tensor:
    """The same, one pixel at a time."""
    n, c, h, w = frames.shape
    rows = torch.empty(n // f * h * w, f, c, dtype=frames.dtype)
    for i, t, y, x in product(range(n // f), range(f), range(h), range(w)):
        rows[(i * h + y) * w + x, t] = frames[i * f + t, :, y, x]
    return rows


def _folded(frames, f, order, *, cut="(b f)"):
    """Rows of which the first axis has the three letters of `order`, from frames that lie as (b f), or as (f b)."""
    n, c, h, w = frames.shape
    clips = frames.reshape(n // f, f, c, h, w) if cut == "(b f)" else frames.reshape(f, n // f, c, h, w).transpose(0, 1)
    axes = {"b": 0, "f": 1, "c": 2, "h": 3, "w": 4}
    return clips.permute(*(axes[name] for name in order)).flatten(0, 2)


TO_TIME_MISTAKES = {
    "a reshape alone keeps the order in which the numbers are read; something has to change that order":
        lambda x, f: x.reshape(-1, f, x.shape[1]),
    "the frames were cut into clips as (f b); they lie as (b f), all frames of the first clip, then those of the next":
        lambda x, f: _folded(x, f, "bhwfc", cut="(f b)"),
    "the rows run as (h w b); b comes first, and w is the fastest": lambda x, f: _folded(x, f, "hwbfc"),
    "the rows run as (w h b); b comes first, and w is the fastest": lambda x, f: _folded(x, f, "whbfc"),
    "the rows run as (b w h); w is the fastest": lambda x, f: _folded(x, f, "bwhfc"),
    "the rows run as (h b w); b comes first": lambda x, f: _folded(x, f, "hbwfc"),
    "each row is c f; the frames come before the channels": lambda x, f: _folded(x, f, "bhwcf"),
    "each row is a frame with its pixels; it is a pixel with its frames": lambda x, f: x.flatten(2).transpose(1, 2),
    "the frames of each row run backwards": lambda x, f: _folded(x, f, "bhwfc").flip(1),
    "the channels of each row run backwards": lambda x, f: _folded(x, f, "bhwfc").flip(2),
}  # fmt: skip


@exercise("1.1", name="to_time", solution=to_time, minutes=8, difficulty=2, importance=5)
def check_to_time(student):
    """On numbered elements, sizes that are all different, in both memory formats and in four dtypes."""
    sizes = {(2, 5, 3, 4, 6): torch.float32, (3, 2, 1, 4, 7): torch.float64, (1, 4, 2, 5, 3): torch.uint8,
             (4, 3, 5, 2, 1): torch.int64}  # fmt: skip
    for (b, f, c, h, w), dtype in sizes.items():
        frames = _numbered(b * f, c, h, w, dtype=dtype)
        wanted = to_time_by_loops(frames, f)
        mistakes = TO_TIME_MISTAKES if (b, f) == (2, 5) else {}  # the first case tells all of them apart
        for layout in (torch.contiguous_format, torch.channels_last):
            found = called(student, frames.contiguous(memory_format=layout), f, what="rows")
            what = f"the rows for b={b}, f={f}, c={c}, h={h}, w={w}"
            recognised(what, found, wanted, _told(mistakes, frames, f), tolerance=0)
            same_dtype(what, found, dtype)
    return "every number in its place, for four batches in two memory formats"


# --- 1.2


def temporal_difference(clips: Tensor) -> Tensor:
    """Frame t + 1 minus frame t: (b c f h w) of any dtype -> (b c f-1 h w) float."""
    clips = clips.float()
    return clips[:, :, 1:] - clips[:, :, :-1]


def temporal_difference_by_loops(clips: Tensor) -> Tensor:
    """The same, one frame at a time, float64."""
    frames = clips.double().unbind(2)
    return torch.stack([later - before for before, later in zip(frames, frames[1:])], dim=2)


_steps = temporal_difference_by_loops
DIFFERENCE_MISTAKES = {
    "the sign is wrong: a pixel that gets brighter has a positive difference": lambda x: -_steps(x),
    "these are sizes without a sign; what gets darker is negative": lambda x: _steps(x).abs(),
    "uint8 was subtracted before it became float, and 24 - 235 wraps around to 45": lambda x: (
        x[:, :, 1:] - x[:, :, :-1]).double() if x.dtype == torch.uint8 else torch.empty(0),
    "every frame was compared with the first; it is compared with the one before": lambda x: (
        x.double() - x.double()[:, :, :1])[:, :, 1:],
    "negative differences were cut to 0": lambda x: _steps(x).clamp(min=0),
    "differences along the channels; frames are axis 2": lambda x: x.double().diff(dim=1),
    "differences from clip to clip; frames are axis 2": lambda x: x.double().diff(dim=0),
    "differences along the rows of a frame; frames are axis 2": lambda x: x.double().diff(dim=3),
    "differences along the columns of a frame; frames are axis 2": lambda x: x.double().diff(dim=4),
    "the differences are divided by 255; they keep the range of the clip": lambda x: _steps(x) / 255,
    "there is one more than there are pairs of frames: the last one has no next": lambda x: torch.cat(
        [_steps(x), torch.zeros_like(x[:, :, :1]).double()], 2),
    "there is one more than there are pairs of frames: the first one has none before it": lambda x: torch.cat(
        [torch.zeros_like(x[:, :, :1]).double(), _steps(x)], 2),
    "the frames were rolled round, so the last is compared with the first": lambda x: x.double().roll(-1, 2) - x.double(),
    "two frames lie between the compared ones; they are neighbours": lambda x: x.double()[:, :, 2:] - x.double()[:, :, :-2],
}  # fmt: skip


@exercise("1.2", name="temporal_difference", solution=temporal_difference, minutes=5, difficulty=1, importance=4)
def check_temporal_difference(student):
    """On bytes and on floats: the first wrap around if they are subtracted as they are."""
    generator = torch.Generator().manual_seed(0)
    for shape, dtype in product(((2, 3, 5, 4, 6), (1, 1, 2, 3, 2), (3, 2, 8, 1, 3)), (torch.float32, torch.uint8)):
        numbers = torch.randint(0, 256, shape, generator=generator)
        clips = numbers.to(dtype) / 255 if dtype == torch.float32 else numbers.to(dtype)
        found = called(student, clips, what="differences")
        what = f"the differences of {'uint8' if dtype == torch.uint8 else 'float'} clips"
        if not found.is_floating_point():
            kept = found.dtype == torch.uint8 and clips.dtype == torch.uint8
            cause = "uint8 has no negative numbers: 24 - 235 is 45 there" if kept else ""
            raise Failed(f"{what} as float", str(found.dtype).removeprefix("torch."), cause)
        mistakes = _told(DIFFERENCE_MISTAKES if shape[0] == 2 else {}, clips)  # the first shape tells all of them apart
        recognised(what, found, temporal_difference_by_loops(clips), mistakes, tolerance=1e-6)
    return "right for uint8 and float, and negative where it becomes darker"


# --- 1.3


def flicker(clips: Tensor) -> Tensor:
    """Mean of what the next frame takes back: clips (b c f h w), f >= 3 -> (b,) float."""
    difference = temporal_difference(clips)
    first, second = difference[:, :, :-1], difference[:, :, 1:]
    taken_back = torch.minimum(first.abs(), second.abs()) * (first * second < 0)
    return taken_back.mean(dim=(1, 2, 3, 4))


def flicker_by_loops(clips: Tensor) -> Tensor:
    """The same, one number at a time."""
    b, c, f, h, w = clips.shape
    result = torch.zeros(b)
    for i, k, t, y, x in product(range(b), range(c), range(1, f - 1), range(h), range(w)):
        before, now, after = clips[i, k, t - 1 : t + 2, y, x].tolist()
        if (now - before) * (after - now) < 0:
            result[i] += min(abs(now - before), abs(after - now))
    return result / (c * (f - 2) * h * w)


def _taken_back(x, *, size=torch.minimum, where=lambda a, d: a * d < 0, mean=lambda v: v.mean((1, 2, 3, 4)), axis=2):
    """The flicker with one thing wrong."""
    difference = x.double().diff(dim=axis)
    n = difference.shape[axis] - 1
    a, d = difference.narrow(axis, 0, n), difference.narrow(axis, 1, n)
    return mean(size(a.abs(), d.abs()) * where(a, d))


FLICKER_MISTAKES = {
    "every change counts; only what the next one takes back is to count": lambda x: _taken_back(
        x, where=lambda a, d: torch.ones_like(a)),
    "the condition is turned round: what goes on in the same direction is counted": lambda x: _taken_back(
        x, where=lambda a, d: a * d > 0),
    "the larger of the two sizes; no more than the smaller one is taken back": lambda x: _taken_back(x, size=torch.maximum),
    "the smaller of two signed numbers is the negative one; their sizes are compared": lambda x: _taken_back(
        x, size=lambda a, d: 1.0, where=lambda a, d: torch.minimum(a, d) * (a * d < 0)),
    "the size of the first change alone; the smaller of the two counts": lambda x: _taken_back(x, size=lambda a, d: a),
    "the size of the second change alone; the smaller of the two counts": lambda x: _taken_back(x, size=lambda a, d: d),
    "the mean of the two sizes; the smaller of the two counts": lambda x: _taken_back(x, size=lambda a, d: (a + d) / 2),
    "the two sizes added; the smaller of the two counts": lambda x: _taken_back(x, size=lambda a, d: a + d),
    "the two sizes multiplied; the smaller of the two counts": lambda x: _taken_back(x, size=lambda a, d: a * d),
    "how often something is taken back; it is to be how much": lambda x: _taken_back(x, size=lambda a, d: torch.ones_like(a)),
    "the channels are added up; the mean goes over them as well": lambda x: _taken_back(
        x, mean=lambda v: v.sum(1).mean((1, 2, 3))),
    "the frames are added up; the mean goes over them as well": lambda x: _taken_back(
        x, mean=lambda v: v.sum(2).mean((1, 2, 3))),
    "a sum; it is to be a mean": lambda x: _taken_back(x, mean=lambda v: v.sum((1, 2, 3, 4))),
    "the sum is divided as if there were f pairs of changes": lambda x: _taken_back(x) * (x.shape[2] - 2) / x.shape[2],
    "the sum is divided as if there were f - 1 pairs of changes": lambda x: (
        _taken_back(x) * (x.shape[2] - 2) / (x.shape[2] - 1)),
    "the mean of those numbers only that are taken back; the others count as 0": lambda x: _taken_back(
        x, mean=lambda v: v.sum((1, 2, 3, 4)) / (v > 0).sum((1, 2, 3, 4))),
    "one number for all clips together; each clip has its own": lambda x: _taken_back(x).mean(),
    "one number for all clips together, repeated; each clip has its own": lambda x: _taken_back(x).mean().expand(len(x)),
    "a number for each channel; each clip has one": lambda x: _taken_back(x, mean=lambda v: v.mean((2, 3, 4))),
    "a number for each pair of changes; each clip has one": lambda x: _taken_back(x, mean=lambda v: v.mean((1, 3, 4))),
    "changes along the rows of a frame; frames are axis 2": lambda x: _taken_back(x, axis=3),
    "changes along the columns of a frame; frames are axis 2": lambda x: _taken_back(x, axis=4),
    "changes along the channels; frames are axis 2": lambda x: _taken_back(x, axis=1),
    "the mean size of all differences; only what is taken back is to count": lambda x: _steps(x).abs().mean((1, 2, 3, 4)),
    "the frames became grey first; each channel is looked at by itself": lambda x: _taken_back(x.mean(1, keepdim=True)),
}  # fmt: skip


@exercise("1.3", name="flicker", solution=flicker, minutes=10, difficulty=3, importance=4)
def check_flicker(student):
    """On random clips against the loops, which tells mistakes apart, then on clips whose flicker needs no computing."""
    generator = torch.Generator().manual_seed(0)
    for shape, size in (((2, 5, 9, 4, 3), 1.0), ((3, 1, 3, 2, 5), 0.01), ((4, 3, 5, 1, 2), 100.0)):  # f = 3 is the least
        clips = size * torch.randn(shape, generator=generator)
        clips = torch.where(torch.rand(shape, generator=generator) < 0.2, clips[:, :, :1], clips)  # some do not change
        what = f"the flicker of {len(clips)} random clips"
        found = called(student, clips, what=what)
        mistakes = _told(FLICKER_MISTAKES if size == 1 else {}, clips)  # the first case tells all of them apart
        recognised(what, found, flicker_by_loops(clips), mistakes, tolerance=1e-5 * size)
        if not found.is_floating_point():
            raise Failed(f"{what} as float", str(found.dtype).removeprefix("torch."))
    up = torch.arange(6.0)[:, None, None] * torch.ones(1, 1, 6, 2, 3)
    known = {
        "a still clip": (torch.ones(1, 1, 6, 2, 3), 0.0),
        "a clip that gets steadily brighter": (up, 0.0),
        "a lamp, on and off, 0 1 0 1 0 1": (up % 2, 1.0),
        "0 3 1 3 0 0": (torch.tensor([0.0, 3, 1, 3, 0, 0]).reshape(1, 1, 6, 1, 1), 1.5),
    }
    for what, (clip, wanted) in known.items():
        found = called(student, clip, what=f"the flicker of {what}")
        recognised(f"the flicker of {what}", found, torch.tensor([wanted]), {}, tolerance=1e-6)
    return "the loops' numbers on random clips, nothing for stillness and steady change, all of a lamp"


# --- 1.4


def velocities(clips: Tensor, threshold: float = 60) -> Tensor:
    """Clips (b c f h w) uint8 -> (b, 2): x and y in pixels a frame; NaN where fewer than two frames show a thing."""
    b, c, f, h, w = clips.shape
    clips = clips.float()
    ground = clips.flatten(2).median(dim=2).values  # (b c)
    weight = (clips - ground[:, :, None, None, None]).abs().sum(dim=1)  # (b c f h w) -> (b f h w)
    weight = weight * (weight >= threshold)
    mass = weight.sum(dim=(2, 3))  # (b f)
    x = weight.sum(dim=2) @ torch.arange(w).float() / mass  # (b f w) @ (w) -> (b f)
    y = weight.sum(dim=3) @ torch.arange(h).float() / mass
    found = []
    for place, shown in zip(torch.stack([x, y], dim=-1), mass > 0):  # (f 2) and (f) of each clip
        t = torch.arange(f)[shown].float()
        t = t - t.mean()
        found.append(t @ place[shown] / (t @ t))
    return torch.stack(found)


def velocities_by_loops(clips: Tensor, threshold: float = 60) -> Tensor:
    """The same, one number at a time, float64."""
    b, c, f, h, w = clips.shape
    found = torch.full((b, 2), torch.nan, dtype=torch.float64)
    for i, clip in enumerate(clips.tolist()):
        ground = [sorted(n for frame in channel for row in frame for n in row)[f * h * w // 2] for channel in clip]
        times, places = [], []
        for t in range(f):
            mass, centre = 0, [0, 0]
            for y, x in product(range(h), range(w)):
                m = sum(abs(clip[k][t][y][x] - ground[k]) for k in range(c))
                if m >= threshold:
                    mass, centre = mass + m, [centre[0] + m * x, centre[1] + m * y]
            if mass:
                times.append(t)
                places.append([centre[0] / mass, centre[1] / mass])
        if len(times) > 1:
            mean = sum(times) / len(times)
            for axis in (0, 1):
                middle = sum(place[axis] for place in places) / len(places)
                found[i, axis] = (sum((t - mean) * (place[axis] - middle) for t, place in zip(times, places))
                                  / sum((t - mean) ** 2 for t in times))
    return found


def _number(shown):
    """The numbers of the frames that are shown."""
    return shown.nonzero()[:, 0].double()


def _slope(place, shown, *, time=_number, mean=torch.mean, places=lambda p: p - p.mean(0)):
    """The line through places (f 2) in the frames that are shown (f): (2,)."""
    t = time(shown)
    t = t - mean(t)
    return t @ places(place[shown]) / (t @ t)


def _ends(place, shown):
    t = shown.nonzero()[:, 0]
    return (place[t[-1]] - place[t[0]]) / (t[-1] - t[0]) if len(t) else place.new_full((2,), torch.nan)


def _read(clips, threshold, *, ground=lambda x: x.flatten(2).median(2).values, distance=lambda d: d.abs().sum(1),
          keep=torch.ge, weight=lambda m: m, hidden=None, line=_slope, then=lambda v, w: v):  # fmt: skip
    """The velocities with one thing wrong."""
    x = clips.double()
    difference = distance(x - ground(x)[:, :, None, None, None])
    m = weight(difference * keep(difference, threshold))
    mass, (h, w) = m.sum((2, 3)), m.shape[2:]
    columns, rows = (torch.arange(n, dtype=torch.float64) for n in (w, h))
    place = torch.stack([m.sum(2) @ columns / mass, m.sum(3) @ rows / mass], -1)
    shown = mass > 0
    if hidden is not None:
        place, shown = place.nan_to_num(nan=hidden), torch.ones_like(shown)
    return then(torch.stack([line(*one) for one in zip(place, shown)]), w)


def _bytes(clips, threshold):
    """Differences as bytes, which wrap around."""
    ground = clips.flatten(2).median(2).values[:, :, None, None, None]
    return _read((clips - ground), threshold, ground=lambda x: torch.zeros_like(x[:, :, 0, 0, 0]))


_median_of_all = lambda x: x.transpose(0, 1).flatten(1).median(1).values.expand(len(x), -1)  # noqa: E731
VELOCITY_MISTAKES = {
    "y comes first; the result is x, then y": lambda x, s: _read(x, s, then=lambda v, w: v.flip(1)),
    "y runs upwards; rows are counted from the top, so what moves down has a positive y": lambda x, s: _read(
        x, s, then=lambda v, w: v * torch.tensor([1.0, -1.0])),
    "the sign is wrong: what moves to the right has a positive x": lambda x, s: _read(x, s, then=lambda v, w: -v),
    "picture widths a frame; it is to be pixels": lambda x, s: _read(x, s, then=lambda v, w: v / w),
    "one ground for all clips; each clip has its own": lambda x, s: _read(x, s, ground=_median_of_all),
    "one ground for all channels; each channel has its own median": lambda x, s: _read(
        x, s, ground=lambda x: x.flatten(1).median(1).values[:, None].expand(-1, x.shape[1])),
    "the ground is the mean colour, which a large thing pulls away; it is the median": lambda x, s: _read(
        x, s, ground=lambda x: x.mean((2, 3, 4))),
    "the ground is the colour of the corner; a thing may lie there": lambda x, s: _read(
        x, s, ground=lambda x: x[:, :, 0, 0, 0]),
    "the ground is black here; it is the median colour": lambda x, s: _read(x, s, ground=lambda x: 0 * x[:, :, 0, 0, 0]),
    "the differences were taken as bytes, and wrap around": _bytes,
    "the differences of the channels were added with their signs, and cancel": lambda x, s: _read(
        x, s, distance=lambda d: d.sum(1).abs()),
    "what is darker than the ground was left out; sizes of differences count": lambda x, s: _read(
        x, s, distance=lambda d: d.clamp(min=0).sum(1)),
    "the channels were averaged; the weight is their sum": lambda x, s: _read(x, s, distance=lambda d: d.abs().mean(1)),
    "the greatest difference of a channel; the weight is the sum of all": lambda x, s: _read(
        x, s, distance=lambda d: d.abs().amax(1)),
    "the root of the sum of squares; the weight is the sum of the sizes": lambda x, s: _read(
        x, s, distance=lambda d: d.square().sum(1).sqrt()),
    "the threshold is applied to each channel; it is for their sum": lambda x, s: _read(
        x, 0, distance=lambda d: (d.abs() * (d.abs() >= s)).sum(1)),
    "the threshold is not applied": lambda x, s: _read(x, 0),
    "a weight that equals the threshold was left out; only what is below becomes 0": lambda x, s: _read(x, s, keep=torch.gt),
    "the weights above the threshold were lowered by it; they stay as they are": lambda x, s: _read(
        x, s, weight=lambda m: (m - s).clamp(min=0)),
    "every pixel of the thing counts alike; it counts by its weight": lambda x, s: _read(
        x, s, weight=lambda m: (m > 0).double()),
    "frames that show nothing were taken for a thing at 0, 0; they have no place in the line": lambda x, s: _read(
        x, s, hidden=0.0),
    "the frames that show a thing were counted anew, 0, 1, 2, …; t is a frame's number in the clip": lambda x, s: _read(
        x, s, line=lambda p, shown: _slope(p, shown, time=lambda shown: torch.arange(shown.sum().item()).double())),
    "t̄ is the mean of all frames; it is that of the frames in the line": lambda x, s: _read(
        x, s, line=lambda p, shown: _slope(p, shown, mean=lambda t: (len(shown) - 1) / 2)),
    "t̄ is the mean of all frames, and x̄ is not subtracted; t̄ is that of the frames in the line": lambda x, s: _read(
        x, s, line=lambda p, shown: _slope(p, shown, mean=lambda t: (len(shown) - 1) / 2, places=lambda p: p)),
    "t̄ was not subtracted, so the line goes through the origin": lambda x, s: _read(
        x, s, line=lambda p, shown: _slope(p, shown, mean=lambda t: 0, places=lambda p: p)),
    "t̄ was not subtracted from t": lambda x, s: _read(x, s, line=lambda p, shown: _slope(p, shown, mean=lambda t: 0)),
    "from the first place to the last; the line takes all frames into account": lambda x, s: _read(x, s, line=_ends),
    "the mean of the steps; the line weighs frames by their distance from the middle": lambda x, s: _read(
        x, s, line=lambda p, shown: p[shown].diff(dim=0).mean(0)),
    "the covariance of place and time is not divided by the variance of time": lambda x, s: _read(
        x, s, line=lambda p, shown: _slope(p, shown) * (_number(shown) - _number(shown).mean()).square().sum()),
}  # fmt: skip

CONSTANT_THRESHOLD = {"the threshold is 60 whatever is asked for": lambda x, s: _read(x, 60)}


def _specks(b, c, f, h, w, seed, threshold=60, faint_from=0.85):
    """Clips of a ground of their own with random specks, bright and faint, and a frame of the first clip without any."""
    generator = torch.Generator().manual_seed(seed)
    ground = torch.randint(20, 236, (b, c, 1, 1, 1), generator=generator).expand(b, c, f, h, w)
    colours = torch.randint(0, 256, (b, c, f, h, w), generator=generator)
    faint = ground + torch.randint(-20, 21, (b, c, f, h, w), generator=generator)
    chance = torch.rand(b, 1, f, h, w, generator=generator)
    clips = torch.where(chance < 0.2, colours, torch.where(chance > faint_from, faint, ground))
    clips[0, :, 1] = ground[0, :, 1]
    clips[:, :, 0, 0, 0] = colours[:, :, 0, 0, 0]
    clips[:, :, 2, 1, 1] = ground[:, :, 2, 1, 1]
    clips[:, 0, 2, 1, 1] += torch.where(ground[:, 0, 2, 1, 1] < 128, 1, -1) * int(threshold)  # its weight is the threshold
    return clips.clamp(0, 255).to(torch.uint8)


def _moving(b, c, f, h, w, seed, share, noise=0):
    """Clips of a bar of h x share w pixels that moves by 1 pixel a frame, darker than its noisy ground."""
    generator = torch.Generator().manual_seed(seed)
    clips = 200 + torch.randint(-noise, noise + 1, (b, c, f, h, w), generator=generator)
    for i, t in product(range(b), range(f)):
        left = t if i % 2 else f - 1 - t
        clips[i, :, t, i + 1 : h - 1, left : left + max(1, int(share * w))] -= 150
    return clips.to(torch.uint8)


@exercise("1.4", name="velocities", solution=velocities, minutes=20, difficulty=3, importance=4)
def check_velocities(student):
    """Random specks, which tell mistakes apart; noisy, dark and large things; other thresholds; clips to abstain from."""
    empty = _specks(4, 3, 5, 3, 8, seed=4)
    empty[1, :, 1:] = empty[1, :, 2:3, 1:2, 1:2] = empty[1].flatten(1).median(1).values[:, None, None, None]
    empty[2] = empty[2].flatten(1).median(1).values[:, None, None, None]
    empty[3, :, [0, 2, 3]] = empty[3].flatten(1).median(1).values[:, None, None, None]
    cases = [(_specks(3, 3, 6, 5, 8, seed=1), 60), (_specks(2, 2, 5, 8, 3, 2, threshold=25), 25),
             (_specks(1, 1, 9, 4, 7, seed=3), 90.5), (_moving(2, 3, 7, 9, 15, 5, share=0.2, noise=6), 60),
             (_specks(2, 3, 5, 7, 9, 7, faint_from=0.2), 60), (_moving(2, 1, 5, 11, 13, 6, share=0.5), 70), (empty, 60)]
    for number, (clips, threshold) in enumerate(cases):
        b, c, f, h, w = clips.shape
        what = f"the velocities for b={b}, c={c}, f={f}, h={h}, w={w}, threshold {threshold}"
        found = called(lambda x: student(x, threshold), clips, what=what)
        expected = velocities_by_loops(clips, threshold)
        told = _told(CONSTANT_THRESHOLD if number else VELOCITY_MISTAKES, clips, threshold)  # the first tells them apart
        if found.shape != expected.shape:
            recognised(what, found, expected, told)
        _abstains(what, found, clips, expected, threshold)
        told = {cause: (lambda wrong=wrong: wrong().nan_to_num(nan=0)) for cause, wrong in told.items()}
        recognised(what, found.nan_to_num(nan=0), expected.nan_to_num(nan=0), told, tolerance=1e-4)
        if not found.is_floating_point():
            raise Failed(f"{what} as float", str(found.dtype).removeprefix("torch."))
    clips = cases[0][0]
    recognised("the velocities without a threshold, which then is 60", called(student, clips), velocities_by_loops(clips), {},
               tolerance=1e-4)  # fmt: skip
    return "the loops' numbers for specks, noise, dark and large things; NaN where too little is shown"


def _abstains(what, found, clips, expected, threshold):
    """NaN where fewer than two frames show a thing, and nowhere else."""
    wanted, given = expected.isnan().any(1), found.isnan().any(1)
    if (given & ~wanted).any():
        i = int((given & ~wanted).nonzero()[0])
        gaps = _read(clips, threshold, line=lambda p, shown: p.sum(0)).isnan().any(1)
        cause = "a frame that shows nothing has the centroid 0 / 0 and must not enter the line"
        raise Failed(f"a number for clip {i} of {what}", "NaN", cause if torch.equal(given, gaps) else "")
    if (wanted & ~given).any():
        i = int((wanted & ~given).nonzero()[0])
        raise Failed(f"NaN for clip {i} of {what}, for fewer than two of its frames show a thing",
                     f"{[round(v, 3) for v in found[i].tolist()]}")  # fmt: skip


# --- 1.B


def unfold(frames: Tensor, f: int) -> Tensor:
    """Frames ((b f) c h w) as clips (b c f h w)."""
    clips = frames.reshape(-1, f, *frames.shape[1:])  # ((b f) c h w) -> (b f c h w)
    return clips.permute(0, 2, 1, 3, 4)  # (b f c h w) -> (b c f h w)


def unfold_by_loops(frames: Tensor, f: int) -> Tensor:
    """The same, one frame at a time."""
    return torch.stack([torch.stack([frames[i + t] for t in range(f)], dim=1) for i in range(0, len(frames), f)])


_clips = unfold_by_loops
OTHER_ORDER = "the axis was cut as (f b), so neighbouring frames go to different clips; it lies as (b f)"
UNFOLD_MISTAKES = {
    OTHER_ORDER: lambda x, f: x.reshape(f, -1, *x.shape[1:]).permute(1, 2, 0, 3, 4),
    "a reshape alone keeps the order in which the numbers are read, and c would lie before f": lambda x, f: x.reshape(
        -1, x.shape[1], f, *x.shape[2:]),
    "f comes before c; the result is b c f h w": lambda x, f: x.reshape(-1, f, *x.shape[1:]),
    "b and f are exchanged; the result is b c f h w": lambda x, f: _clips(x, f).transpose(0, 2),
    "h and w are exchanged": lambda x, f: _clips(x, f).transpose(3, 4),
    "the clips are in the reverse order": lambda x, f: _clips(x, f).flip(0),
    "the channels are in the reverse order, BGR in the place of RGB": lambda x, f: _clips(x, f).flip(1),
    "the frames of each clip run backwards": lambda x, f: _clips(x, f).flip(2),
    "the frames are upside down": lambda x, f: _clips(x, f).flip(3),
    "left and right are exchanged": lambda x, f: _clips(x, f).flip(4),
    "all clips are the first one": lambda x, f: _clips(x, f)[:1].expand(len(x) // f, -1, -1, -1, -1),
}  # fmt: skip


@exercise("1.B", name="unfold", solution=unfold, minutes=5, difficulty=2, importance=5)
def check_unfold(student):
    """On numbered elements: with one clip, which proves little, then with more, and with as many clips as frames."""
    sizes = {(1, 4, 3, 2, 5): torch.float32, (2, 4, 3, 6, 5): torch.float64, (3, 5, 2, 4, 1): torch.uint8,
             (4, 2, 1, 3, 2): torch.float32, (3, 3, 4, 2, 5): torch.int64}  # fmt: skip
    for (b, f, c, h, w), dtype in sizes.items():
        frames = _numbered(b * f, c, h, w, dtype=dtype)
        wanted = unfold_by_loops(frames, f)
        what = f"the clips for b={b}"
        found = called(student, frames, f, what=what)
        wrong = _told(UNFOLD_MISTAKES if b < 3 else {}, frames, f)  # two clips tell all of them apart
        if b == 2 and found.shape == wanted.shape and torch.equal(found.double(), wrong[OTHER_ORDER]()):
            begins = ", ".join(f"clip {n // f} frame {n % f}" for n in range(0, 3 * b, b))
            raise Failed(f"clip 0 of {b} to begin with its own frames", begins, OTHER_ORDER)
        recognised(what, found, wanted, wrong, tolerance=0)
        same_dtype(what, found, dtype)
    return "every frame in its own clip, for batches of 1, 2, 3 and 4"
