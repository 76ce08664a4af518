"""Checks of notebook 17, Video LDM: the mix, what moves, a layer along time around a frozen one, frames that see only text.

The bug hunt is the temporal attention of public ports: where they are given a text, it takes the place of the frames.
"""

import torch
from einops import rearrange
from torch import nn

from minit2v.lab.course.comparing import built, called, normal, random_weights, recognised, same_layer
from minit2v.lab.course.exercises import Failed, close, counted, exercise
from minit2v.lab.course.questions import Question
from minit2v.networks import blocks
from minit2v.networks.unet import ImageUNet, sinusoid
from minit2v.presets import UNetConfig
from minit2v.systems.videoldm import Mixed, TemporalAttention, VideoLDMUNet

_SYSTEMS, _OWN = "tests/test_systems.py::", "tests/test_lab_video_ldm.py::"
EQUATIONS = {
    "17.1": ("a layer of the image model and one along time, mixed",
             _SYSTEMS + "test_video_ldm_with_alpha_1_is_its_image_model_bit_for_bit"),
    "17.2": ("a pixel's frames as one sequence", _OWN + "test_a_pixel_sees_its_own_frames_and_no_other_pixel"),
    "17.3": ("the number of the frame, added to it", _OWN + "test_the_temporal_attention_knows_the_order_of_frames"),
}  # fmt: skip

QUIZ = [
    (
        "All alphas of a trained Video LDM are set to 1, and it is asked for 16 frames. What comes out?",
        ["Noise, for the layers were trained together", "16 pictures of the image model that know nothing of one another",
         "One picture that stands still"],
        1,
        "With alpha = 1 every temporal layer hands its input on, bit for bit. What is left is the image model, frame by frame.",
    ),
    (
        "The image model runs within torch.no_grad(), to save memory, and the temporal layers outside of it. What goes wrong?",
        ["Nothing: its weights do not move anyway",
         "A temporal layer learns only if no layer of the image model comes after it",
         "The image model is trained after all"],
        1,
        "Frozen means that a weight has no gradient. The features that pass through must have one, or the temporal layers "
        "further up hear nothing of the loss.",
    ),
    (
        "Which image model can take over the temporal layers of another one?",
        ["Every one of the same sizes", "One that was tuned from the same weights", "Only the same one"],
        1,
        "Sizes decide whether the weights fit. Whether the features mean the same is decided by where the weights come from.",
    ),
]


def moving_share():
    """Parameters that move in Video LDM's UNet, percent, computed without its weights."""
    from minit2v.systems import find_preset

    with torch.device("meta"):
        unet = VideoLDMUNet(find_preset("videoldm").unet)
    total = sum(p.numel() for p in unet.parameters())
    return round(100 * sum(p.numel() for p in unet.temporal_parameters()) / total, 1)


PREDICTIONS = {
    "17.a": Question("A new temporal layer returns what it is given, and its alpha is 0.5. In how many numbers does the new "
                     "video model differ from its image model?", 0),
    "17.b": Question("How many of the parameters of our Video LDM's UNet move when it learns from videos, in percent?",
                     moving_share, tolerance=5.0),
    "17.c": Question("The temporal layers are put into two other image models of the same sizes: a copy that was tuned "
                     "further, and one that was trained from its own random start. Which of the two do they help?",
                     "the copy", ("both", "the copy", "the other one", "neither")),
}  # fmt: skip


# --- 17.1


def mixed(z, moved, alpha):
    """z, moved: any shape, alike; alpha: a tensor of one number -> their mix; alpha from 1 on: z, bit for bit."""
    alpha = alpha.clamp(0, 1)
    return alpha * z + (1 - alpha) * moved


MIXED_MISTAKES = {
    "alpha is not clamped on this side: it is trained, and an optimiser knows no borders": lambda z, m, a: a * z + (1 - a) * m,
    "the wrong way round: alpha is the share of the image model": lambda z, m, a: (
        (1 - a.clamp(0, 1)) * z + a.clamp(0, 1) * m),
    "a sigmoid never reaches 1; clamp does": lambda z, m, a: a.sigmoid() * z + (1 - a.sigmoid()) * m,
    "the share of the temporal layer is 1 - alpha, and not 1": lambda z, m, a: a.clamp(0, 1) * z + m,
    "the share of the image model is alpha, and not 1": lambda z, m, a: z + (1 - a.clamp(0, 1)) * m,
    "the temporal layer is missing": lambda z, m, a: a.clamp(0, 1) * z,
    "that is the mean, whatever alpha is": lambda z, m, a: (z + m) / 2,
}  # fmt: skip


@exercise("17.1", name="mixed", solution=mixed, minutes=8, difficulty=2, importance=5)
def check_mixed(student):
    """Inside of the borders, on them and beyond; bit for bit at 1 in three precisions; three gradients."""
    for i, (alpha, shape) in enumerate(((0.3, (6, 4, 2, 5)), (0.85, (3, 7)), (-0.4, (2, 3, 4)), (1.6, (2, 3, 4)), (0.0, (5,)))):
        z, moved = normal(*shape, seed=i), normal(*shape, seed=i + 20)
        a = torch.tensor(alpha if i % 2 else [alpha], dtype=torch.float64)
        found = called(student, z, moved, a, what="the mix")
        wrong = {cause: (lambda one=one: one(z, moved, a)) for cause, one in MIXED_MISTAKES.items()}
        recognised(f"the mix at alpha = {alpha:g}", found, mixed(z, moved, a), wrong)
    _bit_for_bit(student)
    _gradients_of_the_mix(student)
    return "clamped, with alpha = 1 bit for bit, and all three learn"


def _bit_for_bit(student):
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        z, moved = normal(400, seed=1).to(dtype), 30 * normal(400, seed=2).to(dtype)
        for alpha in (1.0, 1.25):
            found = called(student, z, moved, torch.tensor(alpha, dtype=dtype), what="the mix")
            if found.dtype != dtype:
                raise Failed(f"{dtype} for inputs of that kind", f"{found.dtype}", "nothing may set a dtype")
            if not torch.equal(found, z):
                n = int((found != z).sum())
                raise Failed(f"z itself at alpha = {alpha:g}, in {dtype}", f"{n} of {len(z)} numbers that differ in their "
                             "last bits", "(z - moved) + moved is rounded: multiply what is not wanted by 0")  # fmt: skip


def _gradients_of_the_mix(student):
    for value in (0.25, 0.8):
        z, moved, weights = normal(3, 4, seed=5), normal(3, 4, seed=6), normal(3, 4, seed=7)
        given = [one.clone().requires_grad_() for one in (z, moved, torch.tensor(value, dtype=torch.float64))]
        result = student(*given)
        wanted = {"z": value * weights, "moved": (1 - value) * weights, "alpha": (weights * (z - moved)).sum()}
        if not result.requires_grad:
            raise Failed("a mix through which gradients pass", "one without", "no detach(), .data, .item() or no_grad()")
        found = torch.autograd.grad(result, given, weights, allow_unused=True)
        for (name, expected), grad in zip(wanted.items(), found):
            if grad is None:
                raise Failed(f"a gradient of {name} at alpha = {value:g}", "none", "no detach(), .data, .item() or no_grad()")
            close(f"the gradient of {name} at alpha = {value:g}", grad, expected, 1e-9)


# --- 17.2


def moving(video, image):
    """Two modules; video has image's parameters under the same names, and its own -> the names of its own, which alone ask
    for gradients from then on."""
    known = {name for name, _ in image.named_parameters()}
    for name, parameter in video.named_parameters():
        parameter.requires_grad_(name not in known)
    return [name for name, _ in video.named_parameters() if name not in known]


class Misleading(nn.Module):
    """An image model and a video model whose names say the opposite of what they are."""

    def __init__(self, video):
        super().__init__()
        self.temporal_norm, self.motion, self.first = nn.LayerNorm(3), nn.Linear(3, 3), nn.Linear(3, 3)
        if video:
            self.second, self.scale = nn.Linear(3, 3), nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        h = self.first(self.motion(self.temporal_norm(x)))
        return self.scale * h + (1 - self.scale) * self.second(h)


SMALL = dict(channels=(4, 8), attention=(False, True), layers_per_level=1, head_dim=4, context_dim=6, norm_groups=2,
             dropout=0.0, first_temporal_heads=0, text_in_embedding=True)  # fmt: skip


def _pairs():
    """(told, video, image, inputs of the video model)."""
    for prior in (True, False):
        config = UNetConfig(**SMALL, scene_prior=prior)
        inputs = normal(2, 4, 3, 4, 2), torch.tensor([500, 20]), normal(2, 5, 6, seed=1)
        told = f"a small VideoLDMUNet {'with' if prior else 'without'} a motion prior"
        yield told, VideoLDMUNet(config), ImageUNet(config), inputs
    yield "a model with misleading names", Misleading(True), Misleading(False), (normal(4, 3),)


NAME_MISTAKES = {
    "these are the image model's": lambda own, others: others,
    "all parameters are in the list": lambda own, others: own | others,
    "names were searched for \"temporal\", which is missing in some of them and may stand in the image model's as well; the "
    "image model tells which are its own": lambda own, others: {name for name in own | others if "temporal" in name},
    "the alphas are missing; they are learnt as well": lambda own, others: {name for name in own if not name.endswith("alpha")},
    "only the alphas are in the list": lambda own, others: {name for name in own if name.endswith("alpha")},
    "only weights are in the list; biases and alphas move as well": lambda own, others: {
        name for name in own if name.endswith("weight")},
}  # fmt: skip


@exercise("17.2", name="moving", solution=moving, minutes=8, difficulty=2, importance=4)
def check_moving(student):
    """Models that ask for all gradients before and for none; then a backward pass, and what it has reached."""
    for asked in (True, False):
        for told, video, image, inputs in _pairs():
            for model in (video, image):
                model.double().load_state_dict(random_weights(model, 1))
            video.requires_grad_(asked), image.requires_grad_(not asked)
            _names(student, told, video, image)
            _what_a_step_reaches(told, video, image, inputs)
            if any(p.requires_grad == asked for p in image.parameters()):
                raise Failed("an image model as it was", "its parameters ask for gradients otherwise than before",
                             "only the video model's are to be set")
    return "the names, and after a backward pass gradients for all of these and for no other"


def _names(student, told, video, image):
    before, weights = dict(video.named_parameters()), {name: p.detach().clone() for name, p in video.named_parameters()}
    others = {name for name, _ in image.named_parameters()}
    training = video.training
    found = student(video, image)
    if found is None:
        raise Failed("a list of names", "None", "the function does not return its result")
    names = list(found)
    if not all(isinstance(name, str) for name in names):
        raise Failed("names, such as \"motion.alpha\"", type(names[0]).__name__, "named_parameters() gives pairs of both")
    own = set(before) - others
    if set(names) != own or len(names) != len(own):
        cause = next((text for text, mistake in NAME_MISTAKES.items() if set(names) == mistake(own, others)), "")
        raise Failed(f"the {len(own)} names of {told} that its image model does not have",
                     f"{len(names)}, of which {len(set(names) & own)} are right", cause)  # fmt: skip
    now = dict(video.named_parameters())
    same = all(now.get(name) is p and torch.equal(p, weights[name]) for name, p in before.items())
    if not same or len(now) != len(before) or video.training != training:
        raise Failed("the video model as it was, but for what asks for gradients", "another", "only requires_grad is to be set")


def _what_a_step_reaches(told, video, image, inputs):
    others = {name for name, _ in image.named_parameters()}
    for name, p in video.named_parameters():
        if p.requires_grad == (name in others):
            wanted, found = ("none", "asks for one") if name in others else ("one", "asks for none")
            raise Failed(f"a gradient for {name} of {told}: {wanted}", f"it {found}",
                         "the image model is frozen" if name in others else "a loaded model asks for none: turn them on")
    output = video(*inputs)
    (output * normal(*output.shape, seed=3)).sum().backward()
    for name, p in video.named_parameters():
        if (p.grad is None) != (name in others):
            raise Failed(f"a gradient {'for' if name not in others else 'for no'} {name} of {told}", "the opposite")


# --- 17.3


class AlongTime(nn.Module):
    """A frozen layer that sees frames, then attention along time, mixed: x ((b f), c, h, w), f -> same."""

    def __init__(self, frozen, c, head_dim, groups):
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.norm, self.norm1 = nn.GroupNorm(groups, c, eps=1e-6), nn.LayerNorm(c)
        self.attention = blocks.Attention(c, head_dim)
        self.proj_out = blocks.zeroed(nn.Linear(c, c))
        self.alpha = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, f):
        z = self.frozen(x)
        h, w = z.shape[2:]
        tokens = self.norm(rearrange(z, "(b f) c h w -> b c f h w", f=f))
        tokens = rearrange(tokens, "b c f h w -> (b h w) f c")
        tokens = tokens + sinusoid(torch.arange(f), tokens.shape[-1]).to(tokens)
        tokens = self.proj_out(tokens + self.attention(self.norm1(tokens)))
        moved = z + rearrange(tokens, "(b h w) f c -> (b f) c h w", h=h, w=w)
        alpha = self.alpha.clamp(0, 1)
        return alpha * z + (1 - alpha) * moved


class Speechless(nn.Module):
    """In the place of attention to a text: adds nothing."""

    def forward(self, x, context):
        return torch.zeros_like(x)


class Library(nn.Module):
    """What `AlongTime` is to equal: the library's temporal attention without a text, mixed in after a frozen layer."""

    def __init__(self, frozen, c, head_dim, groups):
        super().__init__()
        layer = TemporalAttention(c, head_dim, c, groups)
        layer.cross, layer.norm2 = Speechless(), nn.Identity()
        self.frozen, self.mix = frozen.requires_grad_(False), [Mixed(layer)]  # in a list, or weights had other names
        self.norm, self.norm1, self.attention, self.proj_out = layer.norm, layer.norm1, layer.attention, layer.proj_out
        self.alpha = self.mix[0].alpha

    def forward(self, x, f):
        return self.mix[0](self.frozen(x), None, f)


class Fixed(nn.Module):
    """A layer for frames without weights: each pixel is moved by its left neighbour, and frames are told from clips."""

    def forward(self, x):
        if x.ndim != 4:
            raise Failed("frames ((b f), c, h, w) for the frozen layer", f"{tuple(x.shape)}",
                         "it knows no clips: hand x on as it is")
        return torch.tanh(x + 0.5 * x.roll(1, -1)) + 0.1 * x


def _along(layer, x, f, *, tokens="(b h w) f c", fold="(b f)", norm="clip", places="frames", plus=True, residual=True, way=None,
           prenorm=True, spatial=True):  # fmt: skip
    """The library's layer with one thing wrong; `way` (z, the branch's end, alpha) -> what is returned."""
    z = layer.frozen(x) if spatial else x
    b, sizes = len(x) // f, {"h": x.shape[2], "w": x.shape[3]}
    clip = rearrange(z, f"{fold} c h w -> b c f h w", f=f)
    own = rearrange(layer.norm(rearrange(clip, "b c f h w -> (b f) c h w")), "(b f) c h w -> b c f h w", f=f)
    t = rearrange({"clip": layer.norm(clip), "frame": own, "none": clip}[norm], f"b c f h w -> {tokens}")
    if places == "frames":
        t = t + sinusoid(torch.arange(t.shape[1]), t.shape[-1]).to(t)
    seen = layer.attention(layer.norm1(t) if prenorm else t)
    t = layer.proj_out(t + seen if residual else seen)
    t = rearrange(t, f"{tokens} -> b c f h w", **({"b": b} | sizes if tokens == "(b h w) f c" else {"f": f} | sizes))
    t = rearrange(t, f"b c f h w -> {fold} c h w")
    alpha, moved = layer.alpha.clamp(0, 1), z + t if plus else t
    return alpha * z + (1 - alpha) * moved if way is None else way(z, moved, layer.alpha)


ALONG_MISTAKES = {
    "the frozen layer is missing": lambda b, x, f: _along(b, x, f, spatial=False),
    "frames were folded as (f b); they come as (b f), those of a clip beside one another":
        lambda b, x, f: _along(b, x, f, fold="(f b)"),
    "the pixels of a frame attend to one another; a sequence is one pixel in all frames, (b h w) f c":
        lambda b, x, f: _along(b, x, f, tokens="(b f) (h w) c", places="none"),
    "the pixels of a frame are the sequence, and got its numbers; a sequence is one pixel in all frames, (b h w) f c":
        lambda b, x, f: _along(b, x, f, tokens="(b f) (h w) c"),
    "each frame was normalised on its own; the statistics are those of the clip": lambda b, x, f: _along(b, x, f, norm="frame"),
    "the first norm is missing": lambda b, x, f: _along(b, x, f, norm="none"),
    "the frame numbers are missing: the layer does not know which frame comes first":
        lambda b, x, f: _along(b, x, f, places="none"),
    "z is not added to what proj_out gives": lambda b, x, f: _along(b, x, f, plus=False),
    "the tokens are not added to what the attention gives": lambda b, x, f: _along(b, x, f, residual=False),
    "norm1 is missing before the attention": lambda b, x, f: _along(b, x, f, prenorm=False),
    "the wrong way round: alpha is the share of the frozen layer": lambda b, x, f: _along(
        b, x, f, way=lambda z, moved, a: (1 - a.clamp(0, 1)) * z + a.clamp(0, 1) * moved),
    "alpha is not clamped": lambda b, x, f: _along(b, x, f, way=lambda z, moved, a: a * z + (1 - a) * moved),
    "alpha is not used": lambda b, x, f: _along(b, x, f, way=lambda z, moved, a: moved),
    "x, which the frozen layer was given, is mixed in the place of z": lambda b, x, f: _along(
        b, x, f, way=lambda z, moved, a: a.clamp(0, 1) * x + (1 - a.clamp(0, 1)) * moved),
}  # fmt: skip


@exercise("17.3", name="AlongTime", solution=AlongTime, minutes=20, difficulty=4, importance=5)
def check_along_time(student):
    """Clips that are not square, one frame, more frames than clips; then alpha beyond its borders, and what is frozen."""
    cases = [((Fixed(), 6, 3, 2), [(normal(8, 6, 2, 5), 4), (normal(2, 6, 3, 2, seed=1), 1)]),
             ((Fixed(), 4, 2, 4), [(normal(15, 4, 1, 3, seed=2), 5), (normal(6, 4, 3, 2, seed=3), 2)])]  # fmt: skip
    same_layer(student, Library, cases, ALONG_MISTAKES, zero=["proj_out."], settings=["head_dim", "groups"])
    _beyond_the_borders(student)
    _is_frozen(student)
    return "the library's outputs and gradients; with alpha = 1 the frozen layer bit for bit; only what is new learns"


def _beyond_the_borders(student):
    arguments, x = (Fixed(), 4, 2, 2), normal(6, 4, 2, 3, seed=4)
    mine, theirs = built(student, arguments).double(), Library(*arguments).double()
    if abs(float(mine.alpha.detach()) - 0.5) > 1e-6:
        raise Failed("alpha 0.5 in a new layer", f"{float(mine.alpha.detach()):.4g}")
    state = random_weights(theirs, 6)
    for alpha in (-0.6, 0.0, 1.0, 1.7):
        for layer in (mine, theirs):
            layer.load_state_dict(state | {"alpha": torch.tensor(alpha)})
        with torch.no_grad():
            found, expected = called(mine, x, 3), theirs(x, 3)
            wrong = {cause: (lambda one=one: one(theirs, x, 3)) for cause, one in ALONG_MISTAKES.items()}
            recognised(f"the output at alpha = {alpha:g}", found, expected, wrong)
            if alpha >= 1 and not torch.equal(found, Fixed()(x)):
                raise Failed(f"the frozen layer's output bit for bit at alpha = {alpha:g}", "another in its last bits",
                             "mix as in 17.1")


def _is_frozen(student):
    frozen = nn.Conv2d(4, 4, 3, padding=1).double()
    layer = built(student, (frozen, 4, 2, 2)).double()
    layer.load_state_dict(random_weights(layer, 8) | {"alpha": torch.tensor(0.4)})
    x = normal(6, 4, 2, 3, seed=5).requires_grad_()
    output = layer(x, 3)
    (output * normal(*output.shape, seed=6)).sum().backward()
    for name, p in layer.named_parameters():
        if name.startswith("frozen.") and (p.requires_grad or p.grad is not None):
            raise Failed(f"no gradient for {name}", "one", "frozen.requires_grad_(False) in __init__")
        if not name.startswith("frozen.") and p.grad is None:
            raise Failed(f"a gradient for {name}", "none", "only the given layer is frozen")
    reference = Library(frozen, 4, 2, 2).double()
    reference.load_state_dict(layer.state_dict())
    other = x.detach().clone().requires_grad_()
    output = reference(other, 3)
    (output * normal(*output.shape, seed=6)).sum().backward()
    if x.grad is None or not torch.allclose(x.grad, other.grad, atol=1e-9):
        raise Failed("the gradient of x as through an unfrozen layer", "none" if x.grad is None else "another",
                     "frozen weights are not torch.no_grad(): layers before this one hear of the loss through it")


# --- 17.B


def looked(layer, h, context):
    """layer: TemporalAttention; h ((b s), f, c) tokens of each pixel; context (b, n, d) or None -> h, which has looked at its
    own frames, and then at the text if there is one."""
    h = h + layer.attention(layer.norm1(h))
    if context is not None:
        h = h + layer.cross(layer.norm2(h), context)
    return h


def _looked(layer, h, context, *, order="ac", norms=None, plus=True):
    """The library's two looks in another order, or with another norm."""
    norms = {"a": layer.norm1, "c": layer.norm2} if norms is None else norms
    looks = {"a": lambda h: layer.attention(norms["a"](h)), "c": lambda h: layer.cross(norms["c"](h), context)}
    for name in order:
        if name == "a" or context is not None:
            h = h + looks[name](h) if plus else looks[name](h)
    return h


LOOKED_MISTAKES = {
    "with a text, the frames are not looked at: the text is seen besides them, not in their place":
        lambda la, h, c: _looked(la, h, c, order="a" if c is None else "c"),
    "the text is not looked at": lambda la, h, c: _looked(la, h, c, order="a"),
    "first the frames, then the text": lambda la, h, c: _looked(la, h, c, order="ca"),
    "both look at the tokens as they came; the second look is at what the first has made":
        lambda la, h, c: h + layer_looks(la, h, c),
    "the norms are exchanged: norm1 before the attention to frames, norm2 before the one to the text":
        lambda la, h, c: _looked(la, h, c, norms={"a": la.norm2, "c": la.norm1}),
    "the norm before the attention to the text is norm2": lambda la, h, c: _looked(
        la, h, c, norms={"a": la.norm1, "c": la.norm1}),
    "the norms are missing": lambda la, h, c: _looked(la, h, c, norms={"a": lambda h: h, "c": lambda h: h}),
    "what a look gives is added to h, and does not take its place": lambda la, h, c: _looked(la, h, c, plus=False),
}  # fmt: skip


def layer_looks(layer, h, context):
    """The sum of both looks at the same tokens."""
    return layer.attention(layer.norm1(h)) + (0 if context is None else layer.cross(layer.norm2(h), context))


@exercise("17.B", name="looked", solution=looked, minutes=10, difficulty=3, importance=4)
def check_looked(student):
    """Without a text, where the mistake is invisible, and with one; one clip, and several with texts of their own."""
    sizes = ((2, 3, 4, False), (1, 4, 3, True), (3, 2, 5, True), (2, 5, 1, True), (2, 2, 2, False))
    for i, (b, s, f, told) in enumerate(sizes):
        layer = TemporalAttention(6, 3, 5, 2).double()
        layer.load_state_dict(random_weights(layer, i))
        h, context = normal(b * s, f, 6, seed=i), normal(b, 7, 5, seed=i + 9) if told else None
        given = (h,) if context is None else (h, context)
        found = called(lambda h, c=None, layer=layer: student(layer, h, c), *given, what="the tokens")
        wrong = {cause: (lambda one=one: one(layer, h, context)) for cause, one in LOOKED_MISTAKES.items()}
        what = f"the tokens of {counted(b, 'clip')} of {counted(f, 'frame')} {'with' if told else 'without'} a text"
        recognised(what, found, looked(layer, h, context), wrong)
        if not found.requires_grad:
            raise Failed("tokens through which gradients pass", "ones without", "no detach() and no no_grad()")
    return "with a text and without one every frame sees the others of its clip"
