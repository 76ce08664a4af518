"""Checks of notebook 18, Make-A-Video: the pseudo-3D residual block, what `between` is given, one noise for all frames, and
new layers that are meant to change nothing."""

from collections import Counter, defaultdict
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from minit2v.datasets.moving_things import MovingThings
from minit2v.diffusion.samplers import gaussian
from minit2v.lab.course.comparing import built, called, normal, random_weights, recognised, same_layer
from minit2v.lab.course.exercises import Failed, close, counted, exercise
from minit2v.lab.course.questions import Question
from minit2v.networks import blocks
from minit2v.systems.makeavideo import FOLD, MakeAVideo, PseudoResBlock, folded

_SYSTEMS, _OWN = "tests/test_systems.py::", "tests/test_lab_make_a_video.py::"
EQUATIONS = {
    "18.1": ("text is heard by the prior alone", _OWN + "test_prompts_that_differ_in_motion_make_the_same_clip"),
    "18.2": ("pseudo-3D convolution", _OWN + "test_a_pseudo_3d_block_is_a_convolution_of_the_frame_and_one_along_time"),
    "18.3": ("pseudo-3D attention", _SYSTEMS + "test_make_a_video_begins_as_its_image_model"),
    "18.4": ("the path begins as the identity", _SYSTEMS + "test_make_a_video_begins_as_its_image_model"),
    "18.5": ("what is known, and a mask", _OWN + "test_the_library_gives_between_what_the_exercise_asks_for"),
}

QUIZ = [
    (
        "Somebody trains Make-A-Video on videos that all run backwards. What changes?",
        [
            "Nothing: without captions the order of frames does not matter",
            "Things move as in videos that run backwards; what they look like stays",
            "The model no longer understands the captions",
        ],
        1,
        "How things move comes from the videos alone, and how they look and what they are called from the pictures alone.",
    ),
    (
        "A temporal convolution in the path of the data and one in a branch that is added: which weights change nothing at "
        "first?",
        [
            "Zeros in both",
            "The identity in the path, zeros at the end of the branch",
            "The identity in both",
        ],
        1,
        "What is passed through must come out as it was; what is added must be nothing. An identity in a branch doubles its "
        "input, and zeros in the path erase it.",
    ),
    (
        "Why is a mask given beside the known frames, in which the unknown ones are already 0?",
        [
            "It saves the network work",
            "0 is a colour: a grey frame that is known must not look like one that is missing",
            "So that the network knows how long the clip is",
        ],
        1,
        "Pixels run from -1 to 1, so a frame of zeros is a grey frame. Without the mask one input would have two meanings.",
    ),
]


def ways_to_move(count=4000):
    """{shape: how often the training videos show it moving in each direction}."""
    found = defaultdict(Counter)
    for spec in MovingThings("train", size=8, frames=1).batch(range(count)).specs:
        found[spec.things[0].shape][spec.things[0].motion] += 1
    return found


def by_luck(split="test_seen", count=512):
    """Percent of right directions, if each thing moves as some training video of its shape does."""
    ways = ways_to_move()
    things = [spec.things[0] for spec in MovingThings(split, size=8, frames=1).batch(range(count)).specs]
    return round(100 * sum(ways[thing.shape][thing.motion] / ways[thing.shape].total() for thing in things) / count, 1)


PREDICTIONS = {
    "18.a": Question("A perfect Make-A-Video makes for each prompt of the split test_seen one of the training videos of "
                     "such a thing, no matter which. Prompts name one of four directions. In what percentage of its clips "
                     "is the direction right?", by_luck, tolerance=1.5),
    "18.b": Question("Somebody starts the convolutions along time as zero, as notebook 08 does. What is left of a residual "
                     "block?", "its skip alone",
                     ("all of it", "its skip alone", "nothing")),
    "18.c": Question("The paper's network for frames in between works on clips in RGB. It is given the noisy clip, the "
                     "known frames and a mask. How many channels does its first convolution read?", 7),
}  # fmt: skip


# --- 18.1


def _pseudo(layer, x, emb, f=0, *, first=True, second=True, early=False, late=False, added=False, outside=False,
            fold="(b f)", across=False, always=False):  # fmt: skip
    """The library's pseudo-3D residual block with one thing wrong."""

    def along(time, h, does):
        if not does or not (f or always):
            return h
        n, pattern = f or len(x), "b c (h w) f" if across else "b c f (h w)"
        moved = time.conv(rearrange(h, f"{fold} c h w -> {pattern}", f=n))
        moved = rearrange(moved, f"{pattern} -> {fold} c h w", h=h.shape[2])
        return h + moved if added else moved

    h = layer.conv1(F.silu(layer.norm1(x)))
    h = h if late else along(layer.time1, h, first)
    emb = layer.embedding(F.silu(emb))[:, :, None, None]
    if layer.scale_shift:
        scale, shift = emb.chunk(2, dim=1)
        h = layer.norm2(h) * (1 + scale) + shift
    else:
        h = layer.norm2(h + emb)
    h = along(layer.time1, h, first) if late else h
    h = layer.dropout(F.silu(h))
    h = layer.conv2(along(layer.time2, h, second)) if early else layer.conv2(h)
    whole = layer.skip(x) + (h if early or outside else along(layer.time2, h, second))
    return along(layer.time2, whole, second) if outside else whole


BLOCK_MISTAKES = {
    "the first convolution along time is missing": lambda b, *x: _pseudo(b, *x, first=False),
    "the second convolution along time is missing": lambda b, *x: _pseudo(b, *x, second=False),
    "both convolutions along time are missing": lambda b, *x: _pseudo(b, *x, first=False, second=False),
    "what time1 and time2 give is added to their input; they start as the identity, so this doubles it":
        lambda b, *x: _pseudo(b, *x, added=True),
    "frames were folded as (f b); they come as (b f), a clip's frames beside one another":
        lambda b, *x: _pseudo(b, *x, fold="(f b)"),
    "the kernel slides over pixels; frames belong into the third axis, b c f (h w)":
        lambda b, *x: _pseudo(b, *x, across=True),
    "time2 comes before conv2; each follows the convolution within a frame": lambda b, *x: _pseudo(b, *x, early=True),
    "time1 comes after the norm; it follows conv1 at once": lambda b, *x: _pseudo(b, *x, late=True),
    "time2 mixes the skip as well; it follows conv2, and the skip is added after it":
        lambda b, *x: _pseudo(b, *x, outside=True),
    "with f = 0 frames are independent: no layer along time runs": lambda b, *x: _pseudo(b, *x, always=True),
}  # fmt: skip
BLOCKS = ((4, 6, 8, 2, 0.0, True), (6, 6, 5, 3, 0.25, False))


@exercise("18.1", name="PseudoResBlock", solution=PseudoResBlock, minutes=20, difficulty=4, importance=5)
def check_pseudo_res_block(student):
    """Two kinds of blocks, clips of several lengths and pictures; a new block makes independent pictures."""
    for arguments in BLOCKS:
        _starts_as_the_identity(built(student, arguments))
    cases = []
    for arguments in BLOCKS:
        c, e = arguments[0], arguments[2]
        pairs = [(normal(n, c, h, w, seed=n), normal(n, e, seed=n + 1)) for n, h, w in ((10, 2, 5), (3, 4, 3), (4, 3, 2))]
        cases.append((arguments, [(*pair, f) for pair, f in zip(pairs, (5, 1, 2))] + [pairs[2]]))  # the last: pictures, no f
    same_layer(student, PseudoResBlock, cases, BLOCK_MISTAKES, zero=["conv2.", "time1.conv.bias", "time2.conv.bias"],
               settings=["c_in", "c_out", "scale_shift"])
    _makes_independent_pictures(student)
    return "the library's outputs and gradients, and a new block makes of f frames f independent pictures"


def _starts_as_the_identity(layer):
    """The weights of both convolutions along time, where they have the library's names; others are told of later."""
    state = layer.state_dict()
    for name in ("time1.conv", "time2.conv"):
        weight, bias = state.get(f"{name}.weight"), state.get(f"{name}.bias")
        if weight is None or weight.ndim != 4 or weight.shape[2:] != (3, 1) or weight.shape[0] != weight.shape[1]:
            continue
        identity = nn.init.dirac_(torch.empty_like(weight))
        if not torch.equal(weight, identity):
            raise Failed(f"{name}.weight the identity in a new block", "another", _why_not(weight[..., 0], identity[..., 0]))
        if bias is not None and bias.abs().max() > 0:
            raise Failed(f"{name}.bias zero in a new block", f"numbers up to {bias.abs().max().item():.2g}",
                         "the weights are the identity, and the bias is added to it: nn.init.zeros_")


def _why_not(weight, identity):
    """The likely cause of a weight (c, c, 3) that is not the identity."""
    causes = {
        "zeros erase what the convolution within the frame has found; nn.init.dirac_ passes it on": torch.zeros_like(weight),
        "the one stands at the first tap, so every frame becomes the one before it": identity.roll(-1, 2),
        "the one stands at the last tap, so every frame becomes the one after it": identity.roll(1, 2),
        "each frame becomes the mean of three; the one stands in the middle":
            identity.sum(2, keepdim=True).expand_as(weight) / 3,
        "each channel becomes the sum of all; it is 1 from a channel to itself, and 0 to the others":
            identity.amax((0, 1), keepdim=True).expand_as(weight),
    }  # fmt: skip
    return next((cause for cause, one in causes.items() if torch.allclose(weight, one)), "nn.init.dirac_(conv.weight)")


def _makes_independent_pictures(student):
    """A block whose layers within a frame are at random and whose layers along time are new."""
    arguments, f = BLOCKS[0], 4
    layer, image = built(student, arguments).double(), blocks.ResBlock(*arguments).double()
    state = random_weights(image, 8)
    image.load_state_dict(state)
    layer.load_state_dict(state, strict=False)
    x, emb = normal(2 * f, 4, 3, 5, seed=8), normal(2 * f, 8, seed=9)
    with torch.no_grad():
        close("the clip of a new block", called(layer, x, emb, f), image(x, emb), 1e-10,
              "at first each frame is what the block for pictures makes of it")


# --- 18.2


def conditioned(keys, apart):
    """Key frames (b, c, k, h, w), `apart` frames from one to the next -> (b, c + 1, apart (k - 1) + 1, h, w)."""
    b, c, k, h, w = keys.shape
    known = keys.new_zeros(b, c + 1, apart * (k - 1) + 1, h, w)
    known[:, :c, ::apart] = keys
    known[:, c:, ::apart] = 1
    return known


def _parts(keys, apart):
    """(known frames, mask) of the right answer."""
    return conditioned(keys, apart).split([keys.shape[1], 1], dim=1)


def _too_long(keys, apart):
    b, c, k, h, w = keys.shape
    known = keys.new_zeros(b, c + 1, apart * k, h, w)
    known[:, :c, ::apart], known[:, c:, ::apart] = keys, 1
    return known


def _held(keys, apart):
    return keys.repeat_interleave(apart, dim=2)[:, :, : apart * (keys.shape[2] - 1) + 1]


def _joined(known, mask):
    return torch.cat([known, mask], dim=1)


def _apart_less(keys, apart, step):
    """With another distance between the key frames, in a clip of the right length."""
    f, k = apart * (keys.shape[2] - 1) + 1, keys.shape[2]
    places = (torch.arange(k) * step).clamp(max=f - 1)
    known, mask = (part.clone().zero_() for part in _parts(keys, apart))
    known[:, :, places], mask[:, :, places] = keys, 1
    return _joined(known, mask)


CONDITION_MISTAKES = {
    "the mask is the wrong way round: 1 is for frames that are given": lambda keys, apart: _joined(
        _parts(keys, apart)[0], 1 - _parts(keys, apart)[1]),
    "the mask comes first; the library puts it last": lambda keys, apart: _joined(*_parts(keys, apart)[::-1]),
    "one mask for each colour; one for each frame is enough": lambda keys, apart: _joined(
        _parts(keys, apart)[0], _parts(keys, apart)[1].expand_as(_parts(keys, apart)[0])),
    "the mask is missing": lambda keys, apart: _parts(keys, apart)[0],
    "the known frames are missing": lambda keys, apart: _parts(keys, apart)[1],
    "the clip goes on after its last key frame; it ends there, apart · (k - 1) + 1 frames": _too_long,
    "each key frame is held until the next; what is not known is 0": lambda keys, apart: _joined(
        _held(keys, apart), _parts(keys, apart)[1]),
    "with `apart` frames between two they are apart + 1 from one another": lambda keys, apart: conditioned(keys, apart + 1),
    "missing frames are black, -1; a network reads 0 as nothing": lambda keys, apart: _joined(
        _parts(keys, apart)[0] - (1 - _parts(keys, apart)[1]), _parts(keys, apart)[1]),
    "the mask is 1 everywhere": lambda keys, apart: _joined(_parts(keys, apart)[0], torch.ones_like(_parts(keys, apart)[1])),
    "all key frames stand at the beginning": lambda keys, apart: _apart_less(keys, apart, 1),
}  # fmt: skip


def library_condition(keys, apart):
    """What the library gives `between`, in its blocks of pixels: (b, c FOLD² + 1, f, h / FOLD, w / FOLD)."""
    f = apart * (keys.shape[2] - 1) + 1
    frames = keys.new_zeros(*keys.shape[:2], f, *keys.shape[3:])
    frames[:, :, ::apart] = keys
    kept = SimpleNamespace(between=None, stage=lambda network, condition, *others: [condition])
    return next(MakeAVideo.fill(kept, frames, torch.arange(f) % apart == 0, None, None, None, None))


@exercise("18.2", name="conditioned", solution=conditioned, minutes=12, difficulty=2, importance=4)
def check_conditioned(student):
    """Several clips, several distances, one key frame, sizes that are not square; then the library's."""
    sizes = (2, 3, 4, 2, 6, 5), (1, 3, 3, 4, 2, 2), (2, 1, 2, 4, 6, 4), (3, 3, 1, 2, 4, 5), (1, 2, 5, 2, 2, 1)
    for b, c, k, h, w, apart in sizes:
        keys = normal(b, c, k, h, w, seed=k)
        what = f"what `between` is given ({tuple(keys.shape)}, {apart} apart)"
        found = called(lambda one, apart=apart: student(one, apart), keys, what=what)
        if found.dtype != keys.dtype:
            raise Failed(f"{keys.dtype}, the dtype of the key frames", f"{found.dtype}", "make zeros and ones as `keys` is")
        wrong = {cause: (lambda one=one: one(keys, apart)) for cause, one in CONDITION_MISTAKES.items()}
        recognised(what, found, conditioned(keys, apart), wrong)
        blocks_of = torch.cat([folded(found[:, :c], FOLD), found[:, c:, :, ::FOLD, ::FOLD]], dim=1)
        close("the channels in the library's blocks of pixels", blocks_of, library_condition(keys, apart), 1e-12)
    return "key frames at their places, nothing between them, and a mask that says which is which: the library's channels"


# --- 18.3


def upscaled(model, clip, generators):
    """model (x (n, c, h, w), noise (n, c, 2h, 2w)) -> pictures twice as large; clip (b, c, f, h, w), a generator for each of
    the b clips -> (b, c, f, 2h, 2w), each clip's frames made from one noise."""
    b, c, f, h, w = clip.shape
    noise = gaussian((b, c, 2 * h, 2 * w), generators).to(clip)
    made = model(rearrange(clip, "b c f h w -> (b f) c h w"), noise.repeat_interleave(f, dim=0))
    return rearrange(made, "(b f) c h w -> b c f h w", f=f)


def _upscaled(model, clip, generators, *, noise=None, spread=None, fold="(b f)", unfold="(b f)"):
    """`upscaled` with one thing wrong."""
    b, c, f, h, w = clip.shape
    one = (gaussian((b, c, 2 * h, 2 * w), generators) if noise is None else noise(b, c, f, h, w, generators)).to(clip)
    all_noise = one.repeat_interleave(f, dim=0) if spread is None else spread(one, f)
    made = model(rearrange(clip, f"b c f h w -> {fold} c h w"), all_noise)
    return rearrange(made, f"{unfold} c h w -> b c f h w", f=f)


NOISE_MISTAKES = {
    "every frame has its own noise; it is drawn once for a clip": lambda *x: _upscaled(
        *x, noise=lambda b, c, f, h, w, g: rearrange(gaussian((b, c, f, 2 * h, 2 * w), g), "b c f h w -> (b f) c h w"),
        spread=lambda noise, f: noise),
    "frame by frame a new noise is drawn; it is drawn once for a clip": lambda *x: _upscaled(
        *x, noise=lambda b, c, f, h, w, g: torch.stack(
            [gaussian((b, c, 2 * h, 2 * w), g) for _ in range(f)], dim=1).flatten(0, 1), spread=lambda noise, f: noise),
    "the noises of the clips take turns, as `repeat` lays them; a clip's frames lie beside one another: repeat_interleave":
        lambda *x: _upscaled(*x, spread=lambda noise, f: noise.repeat(f, 1, 1, 1)),
    "all clips have the noise of the first": lambda *x: _upscaled(
        *x, spread=lambda noise, f: noise[:1].expand(len(noise) * f, -1, -1, -1)),
    "all colours have the same noise": lambda *x: _upscaled(
        *x, noise=lambda b, c, f, h, w, g: gaussian((b, 1, 2 * h, 2 * w), g).expand(-1, c, -1, -1)),
    "the noise is as small as the clip and was enlarged: blocks of four pixels have the same": lambda *x: _upscaled(
        *x, noise=lambda b, c, f, h, w, g: gaussian((b, c, h, w), g).repeat_interleave(2, 2).repeat_interleave(2, 3)),
    "frames were folded as (f b) on the way in and as (b f) on the way out": lambda *x: _upscaled(*x, fold="(f b)"),
    "frames were folded as (b f) on the way in and as (f b) on the way out": lambda *x: _upscaled(*x, unfold="(f b)"),
    "frames were folded as (f b), and the noise as (b f)": lambda *x: _upscaled(*x, fold="(f b)", unfold="(f b)"),
    "there is no noise": lambda *x: _upscaled(*x, spread=lambda noise, f: 0 * noise.repeat_interleave(f, dim=0)),
}  # fmt: skip


def painter(x, noise):
    """Pictures twice as large, by a rule in which everything matters."""
    n, c, h, w = x.shape
    if tuple(noise.shape) != (n, c, 2 * h, 2 * w):
        raise Failed(f"noise {(n, c, 2 * h, 2 * w)} for pictures {(n, c, h, w)}", f"{tuple(noise.shape)}",
                     "one noise for each picture, twice as high and wide")
    large = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return torch.tanh(large + noise * (1 + 0.3 * large.roll(1, 1))) + 0.2 * noise.roll(1, 3)


def _generators(b, seed):
    return [torch.Generator().manual_seed(seed + i) for i in range(b)]


@exercise("18.3", name="upscaled", solution=upscaled, minutes=12, difficulty=3, importance=3)
def check_upscaled(student):
    """One clip and several, as many clips as frames; equal frames come out equal, whatever stands beside them."""
    for b, c, f, h, w in ((2, 3, 4, 2, 3), (1, 3, 5, 3, 2), (3, 2, 3, 2, 4), (2, 3, 1, 2, 3)):
        clip, what = normal(b, c, f, h, w, seed=f), f"{counted(b, 'clip')} of {counted(f, 'frame')}"
        found = called(lambda x: student(painter, x, _generators(b, 5)), clip, what=what)
        wrong = {cause: (lambda one=one: one(painter, clip, _generators(b, 5))) for cause, one in NOISE_MISTAKES.items()}
        recognised(what, found, upscaled(painter, clip, _generators(b, 5)), wrong)
    still = normal(2, 3, 1, 2, 3, seed=9).expand(-1, -1, 6, -1, -1)
    made = student(painter, still, _generators(2, 1))
    close("the change from frame to frame of a clip that stands still", (made - made[:, :, :1]).abs().max().item(), 0, 1e-12)
    if torch.equal(student(painter, still, _generators(2, 7)), made):
        raise Failed("another clip with other generators", "the same", "the noise comes from `generators`")
    return "frames of a clip have one noise, clips have their own, and what stands still stays still"


# --- 18.B


def begun(conv, project):
    """conv (a convolution along time, in the path) and project (linear, the end of a branch) so that they change nothing."""
    nn.init.dirac_(conv.weight)
    nn.init.zeros_(conv.bias)
    blocks.zeroed(project)


def new_layers(c, taps, d):
    """A convolution along time and a projection as PyTorch makes them."""
    torch.manual_seed(c)
    return nn.Conv2d(c, c, (taps, 1), padding=(taps // 2, 0)), nn.Linear(d, c)


@exercise("18.B", name="begun", solution=begun, minutes=8, difficulty=2, importance=4)
def check_begun(student):
    """Layers of several sizes: the convolution passes on what it is given, the branch adds nothing, and both can learn."""
    for c, taps, d in ((4, 3, 6), (5, 5, 5), (3, 1, 7)):
        conv, project = new_layers(c, taps, d)
        before = _named(conv, project)
        student(conv, project)
        x, h = normal(2, c, 4, 6).float(), normal(9, d, seed=1).float()
        with torch.no_grad():
            passed, added = conv(x), project(h)
            causes = {
                "the convolution is zero, and in the path of the data zero erases everything": torch.zeros_like(x),
                "the convolution passes on twice what it is given": 2 * x,
                "the convolution's weight is right; look at its bias": x + conv.bias[:, None, None],
            }
            cause = next((text for text, one in causes.items() if torch.allclose(passed, one, atol=1e-6)), "")
            close(f"what a convolution of {c} channels and {taps} taps passes on", passed, x, 1e-6, cause)
            constant = torch.allclose(added, added[:1].expand_as(added))
            close("what the branch adds", added, torch.zeros_like(added), 0,
                  "it is the same for every input: what is left is the bias" if constant else "")
        _can_learn(before, conv, project)
    return "the path passes on what it is given, the branch adds nothing, and every weight can still learn"


def _can_learn(before, conv, project):
    now = _named(conv, project)
    for name, p in before.items():
        if now.get(name) is not p:
            raise Failed(f"{name} the same parameter, with other numbers", "another one",
                         "an optimizer holds the old one: change its numbers in place, as nn.init does")
        if not p.requires_grad:
            raise Failed(f"{name} a parameter that learns", "one without gradient", "it begins neutral; it does not stay so")


def _named(conv, project):
    return dict(nn.ModuleDict({"conv": conv, "project": project}).named_parameters())
