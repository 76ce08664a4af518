"""The exercises of notebook 17: right solutions pass however they are written, wrong ones do not; and what it says about
Video LDM's layers along time."""

import copy
from types import SimpleNamespace

import pytest
import torch
from answers import assert_refused
from einops import rearrange
from torch import nn

from minit2v.lab.course import exercises
from minit2v.lab.course.checks import nb17
from minit2v.lab.course.comparing import normal, random_weights
from minit2v.networks.unet import ImageUNet, UNet, sinusoid
from minit2v.presets import UNetConfig
from minit2v.systems.videoldm import Mixed, TemporalAttention, TemporalConvolutions, VideoLDMUNet


def known(mistakes):
    return {f"known: {cause[:70]}": mistake for cause, mistake in mistakes.items()}


def clamped_in_place(z, moved, alpha):
    with torch.no_grad():
        alpha.clamp_(0, 1)
    return alpha * z + (1 - alpha) * moved


MIXED = known(nb17.MIXED_MISTAKES) | {
    "not bit for bit": lambda z, m, a: m + a.clamp(0, 1) * (z - m),
    "not bit for bit, by the sum": lambda z, m, a: (z + m) - (1 - a.clamp(0, 1)) * z - a.clamp(0, 1) * m,
    "the wrong way round, and not clamped": lambda z, m, a: (1 - a) * z + a * m,
    "clamped below and not above": lambda z, m, a: a.clamp(min=0) * z + (1 - a.clamp(min=0)) * m,
    "clamped above and not below": lambda z, m, a: a.clamp(max=1) * z + (1 - a.clamp(max=1)) * m,
    "clamped in place": clamped_in_place,
    "clamped by hand, without a gradient": lambda z, m, a: nb17.mixed(z, m, a.new_tensor(min(max(a.item(), 0), 1))),
    "a number": lambda z, m, a: nb17.mixed(z, m, a.detach()),
    "z is constant": lambda z, m, a: nb17.mixed(z.detach(), m, a),
    "the temporal layer is constant": lambda z, m, a: nb17.mixed(z, m.detach(), a),
    "in float32": lambda z, m, a: nb17.mixed(z.float(), m.float(), a.float()).to(z.dtype),
    "always float64": lambda z, m, a: nb17.mixed(z.double(), m.double(), a.double()),
    "squared": lambda z, m, a: nb17.mixed(z, m, a.clamp(0, 1) ** 2),
    "one or the other": lambda z, m, a: torch.where(a >= 1, z, m),
    "the absolute value": lambda z, m, a: nb17.mixed(z, m, a.abs()),
    "clamped to -1": lambda z, m, a: nb17.mixed(z, m, a).mul(0) + a.clamp(-1, 1) * z + (1 - a.clamp(-1, 1)) * m,
    "z is changed": lambda z, m, a: nb17.mixed(z.mul_(1 + 1e-9), m, a),
    "nothing is returned": lambda z, m, a: None,
}  # fmt: skip


def choosing(choose, freeze=True, before=lambda video, image: None, result=list):
    """`moving` by a way to choose names (name, image's names)."""

    def moving(video, image):
        before(video, image)
        known = {name for name, _ in image.named_parameters()}
        names = [name for name, _ in video.named_parameters() if choose(name, known)]
        for name, p in video.named_parameters():
            if freeze is True or (freeze == "only off" and name not in names) or (freeze == "only on" and name in names):
                p.requires_grad_(name in names)
        return result(names)

    return moving


def own(name, known):
    return name not in known


def moved_away(video, image):
    for p in video.parameters():
        p.data = p.data + 1e-3


def replaced(video, image):
    known = {name for name, _ in image.named_parameters()}
    for name, module in video.named_modules():
        for short, p in list(module.named_parameters(recurse=False)):
            whole = f"{name}.{short}" if name else short
            setattr(module, short, nn.Parameter(p.detach().clone(), whole not in known))


MOVING = {
    "the image model's": choosing(lambda name, known: name in known),
    "all": choosing(lambda name, known: True),
    "none": choosing(lambda name, known: False),
    "by the word temporal": choosing(lambda name, known: "temporal" in name),
    "by the words temporal and motion": choosing(lambda name, known: "temporal" in name or "motion" in name),
    "without alphas": choosing(lambda name, known: name not in known and not name.endswith("alpha")),
    "only alphas": choosing(lambda name, known: name.endswith("alpha")),
    "only weights": choosing(lambda name, known: name not in known and name.endswith("weight")),
    "without norms": choosing(lambda name, known: name not in known and "norm" not in name),
    "without the motion prior": choosing(lambda name, known: name not in known and "motion" not in name),
    "nothing is frozen": choosing(own, freeze=False),
    "only what is frozen is set": choosing(own, freeze="only off"),
    "only what moves is set": choosing(own, freeze="only on"),
    "the other way round": choosing(own, freeze=False, before=lambda video, image: [
        p.requires_grad_(name in dict(image.named_parameters())) for name, p in video.named_parameters()]),
    "the image model is frozen instead": choosing(own, freeze=False, before=lambda video, image: image.requires_grad_(False)),
    "the image model is frozen too": choosing(own, before=lambda video, image: image.requires_grad_(False)),
    "the image model is thawed too": choosing(own, before=lambda video, image: image.requires_grad_(True)),
    "in eval mode": choosing(own, before=lambda video, image: video.eval()),
    "the weights are changed": choosing(own, before=moved_away),
    "the weights are replaced": choosing(own, before=replaced),
    "parameters in the place of names": lambda video, image: [
        dict(video.named_parameters())[name] for name in nb17.moving(video, image)],
    "twice": choosing(own, result=lambda names: names + names),
    "the first is missing": choosing(own, result=lambda names: names[1:]),
    "how many": choosing(own, result=len),
    "nothing is returned": choosing(own, result=lambda names: None),
}  # fmt: skip


def going(forward=None, init=None, base=nb17.AlongTime):
    """An AlongTime with another forward (layer, x, f), or with something done to it at its birth."""

    class Wrong(base):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            if init is not None:
                init(self)

        def forward(self, x, f):
            return super().forward(x, f) if forward is None else forward(self, x, f)

    return Wrong


def with_frozen(replacement):
    """A forward in which the frozen layer is called in another way: replacement (frozen, x, f)."""

    def forward(layer, x, f):
        z = replacement(layer.frozen, x, f)
        return nb17.AlongTime.forward(Around(layer, z), x, f)

    return forward


class Around:
    """A layer whose frozen part gives z whatever it is asked."""

    def __init__(self, layer, z):
        self.layer, self.frozen = layer, lambda x: z

    def __getattr__(self, name):
        return getattr(self.layer, name)


def without_gradient(frozen, x, f):
    with torch.no_grad():
        return frozen(x)


def mixed_by_rounding(layer, x, f):
    return nb17._along(layer, x, f, way=lambda z, moved, a: moved + a.clamp(0, 1) * (z - moved))


def set_alpha(layer, value):
    layer.alpha = nn.Parameter(torch.tensor(value))


def forgotten(layer):
    del layer.alpha
    layer.alpha = torch.tensor(0.5)


def not_zeroed(layer):
    layer.proj_out.reset_parameters()


ALONG = {f"known: {cause[:70]}": going(lambda layer, x, f, one=one: one(layer, x, f)) for cause, one in
         nb17.ALONG_MISTAKES.items()} | {
    "nothing is frozen": going(init=lambda layer: layer.frozen.requires_grad_(True)),
    "all is frozen": going(init=lambda layer: layer.requires_grad_(False)),
    "the frozen layer runs without gradients": going(with_frozen(without_gradient)),
    "the frozen layer gets clips": going(with_frozen(lambda frozen, x, f: frozen(x.unflatten(0, (-1, f))))),
    "the frozen layer's output is detached": going(with_frozen(lambda frozen, x, f: frozen(x).detach())),
    "the frozen layer runs twice": going(with_frozen(lambda frozen, x, f: frozen(frozen(x)))),
    "proj_out at random": going(init=not_zeroed),
    "alpha begins at 1": going(init=lambda layer: set_alpha(layer, 1.0)),
    "alpha begins at 0": going(init=lambda layer: set_alpha(layer, 0.0)),
    "alpha for each channel": going(init=lambda layer: set_alpha(layer, [[[0.5]]])),
    "alpha is no parameter": going(init=forgotten),
    "another name": going(init=lambda layer: setattr(layer, "out", nn.Linear(2, 2))),
    "another eps": going(init=lambda layer: setattr(layer.norm, "eps", 1e-2)),
    "not bit for bit": going(mixed_by_rounding),
    "the numbers run backwards": going(lambda layer, x, f: _reversed(layer, x, f)),
    "the branch learns nothing": going(lambda layer, x, f: nb17.AlongTime.forward(layer, x, f).detach()),
    "x is changed": going(lambda layer, x, f: nb17.AlongTime.forward(layer, x.add_(1e-9), f)),
    "in float32": going(lambda layer, x, f: nb17.AlongTime.forward(copy.deepcopy(layer).float(), x.float(), f).to(x.dtype)),
    "nothing is returned": going(lambda layer, x, f: None),
}  # fmt: skip


def _reversed(layer, x, f):
    flip = lambda y: rearrange(rearrange(y, "(b f) c h w -> b f c h w", f=f).flip(1), "b f c h w -> (b f) c h w")
    return flip(nb17.AlongTime.forward(layer, flip(x), f))


LOOKED = known(nb17.LOOKED_MISTAKES) | {
    "the port": lambda la, h, c: h + (la.attention(la.norm1(h)) if c is None else la.cross(la.norm2(h), c)),
    "only with a text": lambda la, h, c: h if c is None else nb17.looked(la, h, c),
    "no frames at all": lambda la, h, c: h if c is None else h + la.cross(la.norm2(h), c),
    "the text twice": lambda la, h, c: nb17._looked(la, h, c, order="acc"),
    "the frames twice": lambda la, h, c: nb17._looked(la, h, c, order="aac"),
    "the first text for all": lambda la, h, c: nb17.looked(la, h, None if c is None else c[:1].expand_as(c)),
    "the texts in reverse": lambda la, h, c: nb17.looked(la, h, None if c is None else c.flip(0)),
    "the mean of the text": lambda la, h, c: nb17.looked(la, h, None if c is None else c.mean(1, keepdim=True)),
    "pixels in the place of frames": lambda la, h, c: nb17.looked(la, h.transpose(0, 1), None).transpose(0, 1),
    "without gradients": lambda la, h, c: nb17.looked(la, h, c).detach(),
    "half of each": lambda la, h, c: h + nb17.layer_looks(la, h, c) / 2,
    "h is changed": lambda la, h, c: nb17.looked(la, h.add_(1e-9), c),
    "nothing is returned": lambda la, h, c: None,
}  # fmt: skip

WRONG = {"17.1": MIXED, "17.2": MOVING, "17.3": ALONG, "17.B": LOOKED}
ALL = [(number, name) for number, wrong in WRONG.items() for name in wrong]


@pytest.mark.parametrize("number, name", ALL, ids=[" ".join(one) for one in ALL])
def test_wrong_answers_fail(number, name):
    assert_refused(number, WRONG[number][name])


KNOWN = [(number, cause, mistake) for number, mistakes in
         (("17.1", nb17.MIXED_MISTAKES), ("17.B", nb17.LOOKED_MISTAKES)) for cause, mistake in mistakes.items()]  # fmt: skip
KNOWN += [("17.3", cause, ALONG[f"known: {cause[:70]}"]) for cause in nb17.ALONG_MISTAKES]


@pytest.mark.parametrize("number, cause, mistake", KNOWN, ids=[f"{number} {cause[:40]}" for number, cause, _ in KNOWN])
def test_a_known_mistake_is_named(number, cause, mistake):
    assert exercises.run(number, mistake).message.endswith(f"Likely cause: {cause}")


@pytest.mark.parametrize("number, name, told", [
    ("17.1", "not bit for bit", "multiply what is not wanted by 0"), ("17.1", "clamped in place", "in place"),
    ("17.2", "the image model's", "these are the image model's"), ("17.2", "by the word temporal", "names were searched"),
    ("17.2", "without alphas", "the alphas are missing"), ("17.2", "only what is frozen is set", "a loaded model asks for none"),
    ("17.2", "nothing is frozen", "the image model is frozen"),
    ("17.2", "the image model is frozen too", "only the video model's"),
    ("17.3", "nothing is frozen", "requires_grad_(False)"), ("17.3", "proj_out at random", "blocks.zeroed"),
    ("17.3", "the frozen layer runs without gradients", "no_grad()"),
    ("17.3", "the frozen layer gets clips", "it knows no clips"), ("17.B", "the port", "besides them, not in their place"),
])  # fmt: skip
def test_a_cause_is_named(number, name, told):
    assert told in exercises.run(number, WRONG[number][name]).message


def lerped(z, moved, alpha):
    return z + (1 - alpha.clamp(0, 1)) * (moved - z)


def by_shapes(video, image):
    states = [set(dict(one.named_parameters())) for one in (video, image)]
    video.requires_grad_(False)
    own = states[0] - states[1]
    for name in own:
        video.get_parameter(name).requires_grad_()
    return own


class WithTheLibrary(nn.Module):
    """Views of one step, the library's attention map, and a residual as a branch."""

    def __init__(self, frozen, c, head_dim, groups):
        super().__init__()
        self.frozen, layer = frozen, TemporalAttention(c, head_dim, c, groups)
        for p in frozen.parameters():
            p.requires_grad = False
        self.norm, self.norm1, self.attention, self.proj_out = layer.norm, layer.norm1, layer.attention, layer.proj_out
        self.alpha = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, f):
        z = self.frozen(x)
        n, c, h, w = z.shape
        t = self.norm(z.view(n // f, f, c, h * w).transpose(1, 2)).permute(0, 3, 2, 1).reshape(-1, f, c)
        t = t + sinusoid(torch.arange(f), c).to(t)
        branch = self.proj_out(t + self.attention(self.norm1(t))).view(-1, h, w, f, c)
        return z + (1 - self.alpha.clamp(0, 1)) * branch.permute(0, 3, 4, 1, 2).reshape(n, c, h, w)


def one_after_the_other(layer, h, context):
    seen = h + layer.attention(layer.norm1(h))
    if context is None:
        return seen
    b, (n, f, c) = len(context), seen.shape
    return seen + layer.cross(layer.norm2(seen).view(b, -1, c), context).view(n, f, c)


@pytest.mark.parametrize("number, right", [
    ("17.1", lerped), ("17.2", by_shapes), ("17.3", WithTheLibrary), ("17.B", one_after_the_other)])  # fmt: skip
def test_other_ways_to_write_it_pass(number, right):
    outcome = exercises.run(number, right)
    assert outcome.passed, outcome.message


# --- what the notebook says about the layers


def attention():
    layer = TemporalAttention(6, 3, 5, 2).double()
    layer.load_state_dict(random_weights(layer, 0))
    return layer, normal(8, 6, 2, 3), normal(2, 4, 5, seed=1)


def test_the_temporal_attention_knows_the_order_of_frames():
    layer, x, context = attention()
    flip = lambda y: y.unflatten(0, (2, 4)).flip(1).flatten(0, 1)
    with torch.no_grad():
        assert not torch.allclose(flip(layer(flip(x), context, 4)), layer(x, context, 4), atol=1e-3)


def test_a_pixel_sees_its_own_frames_and_no_other_pixel():
    layer, x, context = attention()
    layer.norm = nn.Identity()  # whose statistics are those of the whole clip
    (gradient,) = torch.autograd.grad(layer(x.requires_grad_(), context, 4)[1, :, 0, 2].sum(), x)
    seen = gradient.abs().sum(1) > 0
    wanted = torch.zeros(8, 2, 3, dtype=torch.bool)
    wanted[:4, 0, 2] = True
    assert torch.equal(seen, wanted)


def test_the_exercises_are_the_librarys_layers():
    """`mixed` is Mixed, and `looked` is what its attention does with the tokens."""
    z, layer = normal(3, 4), nn.Linear(4, 4).double()
    mix = Mixed(layer).double()
    mix.alpha.data.fill_(1.2)
    torch.testing.assert_close(mix(z), nb17.mixed(z, layer(z), mix.alpha), rtol=0, atol=0)
    layer, x, context = attention()
    within = SimpleNamespace(h=None)
    layer.attention.register_forward_pre_hook(lambda _, given: setattr(within, "h", given[0]))
    layer.proj_out.register_forward_pre_hook(lambda _, given: setattr(within, "out", given[0]))
    normed, layer.norm1 = layer.norm1, nn.Identity()
    with torch.no_grad():
        layer(x, context, 4)
        h = within.h  # the tokens as the attention gets them
        expected = nb17.looked(layer, h, context)
    torch.testing.assert_close(within.out, expected.unflatten(0, (2, -1)).flatten(1, 2))
    layer.norm1 = normed


def test_predictions_are_true():
    config = UNetConfig(**nb17.SMALL, scene_prior=True)
    torch.manual_seed(0)
    video, image = VideoLDMUNet(config), ImageUNet(config)
    image.load_state_dict(random_weights(image, 3))
    video.load_state_dict(image.state_dict(), strict=False)
    given = torch.randn(2, 4, 3, 4, 4), torch.tensor([9, 700]), torch.randn(2, 5, 6)
    with torch.no_grad():
        assert (video(*given) != image(*given)).sum() == nb17.PREDICTIONS["17.a"].answer
    with torch.device("meta"):
        released = VideoLDMUNet(UNetConfig(**nb17.SMALL))
    assert {id(p) for p in released.temporal_parameters()} < {id(p) for p in released.parameters()}
    assert 20 < nb17.moving_share() < 30


def test_an_alpha_beyond_its_border_and_its_layer_learn_nothing_any_more():
    """What the notebook warns of: a clamp has no gradient beyond its border, and above 1 the layer's share is 0."""
    for value, alpha_learns, layer_learns in ((0.7, True, True), (1.1, False, False), (-0.1, False, True)):
        mix, x = Mixed(TemporalConvolutions(4, 2)).double(), normal(6, 4, 2, 3)
        mix.load_state_dict(random_weights(mix, 1) | {"alpha": torch.tensor(value)})
        (mix(x, 3) * normal(6, 4, 2, 3, seed=2)).sum().backward()
        assert (mix.alpha.grad.abs() > 0).item() == alpha_learns
        assert (mix.layer.conv1.weight.grad.abs().max() > 0).item() == layer_learns


def test_frozen_weights_let_gradients_through():
    """The temporal layers before a frozen one hear of the loss."""
    unet = VideoLDMUNet(UNetConfig(**nb17.SMALL))
    unet.double().load_state_dict(random_weights(unet, 2))
    moving = nb17.moving(unet, ImageUNet(UNetConfig(**nb17.SMALL)))
    unet(normal(1, 4, 3, 4, 4), torch.tensor([30]), normal(1, 5, 6)).square().mean().backward()
    assert all(unet.get_parameter(name).grad.abs().max() > 0 for name in moving if name.startswith("down.0"))
    assert isinstance(unet, UNet) and all(p.grad is None for name, p in unet.named_parameters() if name not in moving)
