"""The UNet: the released model by count and by value, and what its temporal layers may and may not do."""

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from torch.nn.utils import parametrize

from minit2v import presets
from minit2v.networks import blocks
from minit2v.networks.blocks import attend
from minit2v.networks.layers import GroupNorm
from minit2v.networks.unet import ScenePrior, UNet
from minit2v.presets import UNetConfig

TINY = UNetConfig(
    channels=(32, 64),
    attention=(True, False),
    layers_per_level=2,
    head_dim=8,
    context_dim=16,
    norm_groups=8,
    dropout=0.0,
)


def redrawn(model, seed=0):
    """All parameters random: initial zeros would hide whole branches."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(
                torch.randn(p.shape, generator=generator, dtype=p.dtype)
                * (0.3 if p.ndim == 1 else p[0].numel() ** -0.5)
                + (p.ndim == 1) * 0.1
            )
    return model.double().eval()


def reference_name(name: str) -> str:
    """Our name of a parameter -> diffusers' name."""
    for pattern, target in (
        (r"^time_embedding\.0", "time_embedding.linear_1"),
        (r"^time_embedding\.2", "time_embedding.linear_2"),
        (r"^first_temporal", "transformer_in"),
        (r"^norm_out", "conv_norm_out"),
        (r"^(down|up)\.(\d+)\.resample", r"\1_blocks.\2.\1samplers.0"),
        (r"^(down|up)\.(\d+)\.blocks\.(\d+)", r"\1_blocks.\2.\3"),
        (r"^middle\.first", "mid_block.0"),
        (r"^middle\.last", "mid_block.1"),
        (r"^(\w+(?:\.\d+)?)\.(\d+)\.res\.", r"\1.resnets.\2."),
        (r"^(\w+(?:\.\d+)?)\.(\d+)\.spatial\.", r"\1.attentions.\2."),
        (r"^(\w+(?:\.\d+)?)\.(\d+)\.temporal\.", r"\1.temp_attentions.\2."),
        (r"^(\w+(?:\.\d+)?)\.(\d+)\.temporal_conv\.", r"\1.temp_convs.\2."),
        (r"norms\.(\d)", lambda m: f"conv{int(m[1]) + 1}.0"),
        (r"(?<!temp_)convs\.0\.(?=weight|bias)", "conv1.2."),
        (r"(?<!temp_)convs\.(\d)\.(?=weight|bias)", lambda m: f"conv{int(m[1]) + 1}.3."),
        (r"resnets\.(\d+)\.embedding", r"resnets.\1.time_emb_proj"),
        (r"resnets\.(\d+)\.skip", r"resnets.\1.conv_shortcut"),
        (r"\.block\.", ".transformer_blocks.0."),
        (r"feed_forward\.proj_in", "ff.net.0.proj"),
        (r"feed_forward\.proj_out", "ff.net.2"),
        (r"to_out", "to_out.0"),
    ):
        name = re.sub(pattern, target, name)
    return name


@pytest.fixture(scope="module")
def pair():
    """(ours, diffusers') with the same random weights."""
    from diffusers import UNet3DConditionModel

    ours = redrawn(UNet(TINY))
    theirs = (
        UNet3DConditionModel(
            in_channels=4,
            out_channels=4,
            block_out_channels=TINY.channels,
            layers_per_block=2,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            cross_attention_dim=16,
            attention_head_dim=8,
            norm_num_groups=8,
            sample_size=8,
        )
        .double()
        .eval()
    )
    state, target = {reference_name(k): v for k, v in ours.state_dict().items()}, theirs.state_dict()
    theirs.load_state_dict({k: v[..., None] if target[k].ndim == 5 else v for k, v in state.items()})
    return ours, theirs


@pytest.mark.parametrize("b, f, h, w", [(2, 1, 8, 8), (2, 3, 8, 12), (1, 16, 8, 8), (1, 17, 4, 8), (2, 2, 6, 10)])
def test_equals_diffusers(pair, b, f, h, w):
    ours, theirs = pair
    generator = torch.Generator().manual_seed(f)
    x, context = (
        torch.randn(b, 4, f, h, w, generator=generator).double(),
        torch.randn(b, 5, 16, generator=generator).double(),
    )
    t = torch.tensor([981, 3])[:b]
    with torch.no_grad():
        assert (ours(x, t, context) - theirs(x, t, context).sample).abs().max() < 1e-6


def test_released_size():
    with torch.device("meta"):
        unet = UNet(presets.get("modelscope-1.7b").unet)
    assert sum(p.numel() for p in unet.parameters()) == 1_411_233_860
    assert sum(p.numel() for p in unet.temporal_parameters()) == 545_323_136
    assert len(unet.state_dict()) == 1480


def test_temporal_layers_start_as_the_identity():
    torch.manual_seed(0)
    unet = UNet(TINY)
    temporal = {id(p) for p in unet.temporal_parameters()}
    with torch.no_grad():
        for p in unet.parameters():
            if id(p) not in temporal:
                p.normal_(std=0.1)
    x, context, t = torch.randn(2, 4, 5, 8, 8), torch.randn(2, 5, 16), torch.tensor([7, 900])
    clip, frames = unet(x, t, context), unet(x, t, context, temporal=False)
    assert torch.allclose(clip, frames, atol=1e-5)
    one = unet(x[:, :, 2:3], t, context, temporal=False)
    assert torch.allclose(frames[:, :, 2:3], one, atol=1e-5), "with temporal=False a frame must not see the others"


def test_temporal_convolutions_are_the_3d_ones_of_the_paper():
    """Kernels (3, 1) over (f, h w), which are fast, against kernels (3, 1, 1) over (f, h, w)."""
    layer, x = redrawn(blocks.TemporalConv(8, 4, 0.0)), torch.randn(2 * 5, 8, 3, 4).double()
    h = rearrange(x, "(b f) c h w -> b c f h w", f=5)
    for norm, conv in zip(layer.norms, layer.convs):
        h = F.conv3d(F.silu(norm(h)), conv.weight[..., None], conv.bias, padding=(1, 0, 0))
    torch.testing.assert_close(layer(x, f=5), x + rearrange(h, "b c f h w -> (b f) c h w"))


class SpatialOnly(nn.Module):
    """A block of somebody else's, whose only layer along time is a number for each channel."""

    def __init__(self, c_in, c_out, attention, config):
        super().__init__()
        self.conv, self.bias = nn.Conv2d(c_in, c_out, 3, padding=1), nn.Conv2d(c_out, c_out, 1)

    def temporal_layers(self):
        return [self.bias]

    def forward(self, x, emb, context, f, temporal=True):
        x = self.conv(x)
        return self.bias(x) if temporal else x


def test_blocks_of_another_class_name_their_own_temporal_layers():
    torch.manual_seed(0)
    unet = UNet(TINY, block=SpatialOnly)
    blocks_ = [module for module in unet.modules() if isinstance(module, SpatialOnly)]
    assert len(blocks_) == 2 * 2 + 2 + 2 * 3
    assert unet.temporal_layers() == [unet.first_temporal, *(block.bias for block in blocks_)]
    x, context, t = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 5, 16), torch.tensor([7])
    unet.conv_out.weight.data.normal_()
    assert unet(x, t, context).shape == x.shape
    assert not torch.allclose(unet(x, t, context), unet(x, t, context, temporal=False))


def test_an_adapter_on_any_linear_layer_is_felt():
    """`torch.nn.utils.parametrize` on `weight`, one layer after the other: the output changes every time, and back."""

    class Shifted(nn.Module):
        def forward(self, weight):
            return weight + 0.1

    departures = {name: True for name in ("frame_positions", "text_in_embedding", "scene_prior", "scale_shift")}
    small = replace(TINY, channels=(16,), attention=(True,), layers_per_level=1, norm_groups=4, first_temporal_heads=2)
    unet = redrawn(UNet(replace(small, **departures)))
    layers = {name: module for name, module in unet.named_modules() if isinstance(module, nn.Linear)}
    x, context, t = torch.randn(1, 4, 2, 4, 4).double(), torch.randn(1, 5, 16).double(), torch.tensor([7])
    with torch.no_grad():
        plain, unfelt = unet(x, t, context), []
        for name, layer in layers.items():
            parametrize.register_parametrization(layer, "weight", Shifted())
            if torch.equal(unet(x, t, context), plain):
                unfelt.append(name)
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        assert torch.equal(unet(x, t, context), plain)
    assert len(layers) > 100 and not unfelt


def test_time_is_seen_only_through_temporal_convolutions():
    """With them silent the paper's network does not know the order of the frames; with the departure it does."""
    for positions in (False, True):
        config = replace(TINY, frame_positions=positions)
        unet = redrawn(UNet(config))
        for name, p in unet.named_parameters():
            if "convs.3" in name:
                torch.nn.init.zeros_(p)
        x, context, t = torch.randn(1, 4, 6, 8, 8).double(), torch.randn(1, 5, 16).double(), torch.tensor([500])
        with torch.no_grad():
            same = torch.allclose(unet(x.flip(2), t, context), unet(x, t, context).flip(2), atol=1e-8)
        assert same != positions


@pytest.mark.parametrize("departure", ["text_in_embedding", "frame_positions", "scene_prior", "scale_shift"])
def test_departures_add_spatial_parameters_only_when_on(departure):
    def spatial(config):
        unet = UNet(config)
        return sum(p.numel() for p in unet.parameters()) - sum(p.numel() for p in unet.temporal_parameters())

    def temporal(config):
        return sum(p.numel() for p in UNet(config).temporal_parameters())

    departed = replace(TINY, **{departure: True})
    assert spatial(departed) > spatial(TINY) and temporal(departed) == temporal(TINY)


@torch.no_grad()
def test_scene_prior_depends_on_text_frame_row_and_column():
    """Given some frames of a clip, it is that of the whole clip at those frames."""
    prior = ScenePrior(16, 32)
    context, positions = torch.randn(2, 5, 16), torch.arange(16).expand(2, -1)
    whole = prior(context, positions, 4, 6).unflatten(0, (2, 16))
    some = prior(context, positions[:, 1::4], 4, 6).unflatten(0, (2, 4))
    assert whole.shape == (2, 16, 32, 4, 6) and torch.allclose(whole[:, 1::4], some, atol=1e-6)
    for axis in (0, 1, 3, 4):  # another text, frame, row or column: another feature
        assert whole.std(dim=axis).mean() > 0.01


@pytest.mark.parametrize("tokens", [16, 200])
def test_both_forms_of_attention_agree(tokens):
    """Short sequences are attended to readably, long ones by the fused kernel."""
    q, k, v = torch.randn(3, 2, 4, tokens, 8).double()
    expected = (q @ k.mT / 8**0.5).softmax(-1) @ v
    torch.testing.assert_close(attend(q, k, v), expected)


def test_many_sequences_are_attended_in_parts(monkeypatch):
    """GPU kernels take 65,535 at a time; so many pixels times heads do not change a number."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 10, 2, 5, 4).double()
    whole = blocks.attend(q, k, v)
    monkeypatch.setattr(blocks, "MOST_SEQUENCES", 6)
    assert torch.allclose(blocks.attend(q, k, v), whole, atol=1e-12)


def test_feed_forward_in_parts_is_the_same(monkeypatch):
    layer, x = blocks.GEGLU(8).double(), torch.randn(3, 50, 8, dtype=torch.float64)
    whole = layer(x)
    monkeypatch.setattr(blocks, "PART", 7 * 4 * 8)  # seven tokens at a time, and three at the end
    torch.testing.assert_close(layer(x), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", [8, 40])
def test_group_norm_is_pytorch_s_and_leaves_the_memory_format(side):
    """Small maps in bfloat16 take another way: values and gradients are as exact, and pixels stay rows."""
    torch.manual_seed(0)
    x = torch.randn(2, 32, side, side).contiguous(memory_format=torch.channels_last)
    pull = torch.randn_like(x)

    def computed(layer, x):
        x = x.clone().requires_grad_()
        y = layer(x)
        return y, torch.autograd.grad((y * pull.to(y.dtype)).sum(), [x, layer.weight, layer.bias])

    exact, expected = computed(torch.nn.GroupNorm(8, 32).double(), x.double())
    y, gradients = computed(GroupNorm(8, 32).bfloat16(), x.bfloat16())
    assert y.is_contiguous(memory_format=torch.channels_last)
    for found, wanted in zip((y, *gradients), (exact, *expected)):
        assert (found - wanted).norm() < 2**-7 * wanted.norm()


def test_group_norm_learns_from_maps_that_need_no_gradient():
    """As behind a frozen layer. PyTorch 2.7 and 2.8 end the process there, if the maps are channels_last."""
    x = torch.randn(2, 4, 3, 8, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    layer, pull, learning = GroupNorm(2, 4).double(), torch.randn_like(x), x.clone().requires_grad_()
    own = torch.autograd.grad((layer(x) * pull).sum(), [layer.weight, layer.bias])
    *beside, _ = torch.autograd.grad((layer(learning) * pull).sum(), [layer.weight, layer.bias, learning])
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(own, beside))
