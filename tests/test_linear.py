"""The fast path of a linear layer is the readable one, and is taken where it should be."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from minit2v.networks.layers import Linear, fast, linear
from minit2v.networks.unet import UNet
from minit2v.presets import UNetConfig


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def operations(call) -> set[str]:
    with FlopCounterMode(display=False) as counter:
        call()
    return {str(name) for name in counter.get_flop_counts()["Global"]}


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="no MKL: there is one path")
@pytest.mark.parametrize("shape, e", [((5,), 3), ((4, 7), 1), ((2, 3, 40), 64), ((64, 16, 24), 48)])
def test_both_paths_agree(shape, e):
    x, weight, bias = torch.randn(shape), torch.randn(e, shape[-1]), torch.randn(e)
    for b in (bias, None):
        with torch.no_grad():
            assert operations(lambda: linear(x, weight, b)) == {"aten.convolution"}
            y = linear(x, weight, b)
            with torch.backends.mkldnn.flags(enabled=False):
                assert not fast(x)
        assert y.is_contiguous() and y.shape == (*shape[:-1], e)
        torch.testing.assert_close(y, F.linear(x, weight, b))
    strided = torch.randn(6, 10, shape[-1])[:, ::2].transpose(0, 1)  # a copy is made on either path
    with torch.no_grad():
        torch.testing.assert_close(linear(strided, weight, bias), F.linear(strided, weight, bias))


def test_where_a_gradient_is_asked_for_it_is_an_ordinary_layer():
    layer, x = Linear(8, 6), torch.randn(3, 8, requires_grad=True)
    assert operations(lambda: layer(x)) == {"aten.addmm"}
    assert torch.autograd.gradcheck(layer.double(), x.double().detach().requires_grad_())
    with torch.no_grad():
        assert not fast(x.double()) and not fast(x.bfloat16()), "MKL and oneDNN have these to themselves"


@torch.no_grad()
def test_a_whole_network_gives_the_same_on_both_paths():
    torch.manual_seed(0)
    config = UNetConfig(channels=(32, 64), attention=(True, True), head_dim=16, context_dim=24, norm_groups=8)
    unet = UNet(config).eval()
    for p in unet.parameters():
        p.normal_(std=0.3 if p.ndim == 1 else p[0].numel() ** -0.5)
    x, t, context = torch.randn(2, 4, 3, 8, 6), torch.tensor([7, 900]), torch.randn(2, 5, 24)
    quick = unet(x, t, context)
    torch.set_num_threads(1)
    assert not fast(x)
    readable = unet(x, t, context)
    assert (quick - readable).norm() < 1e-5 * readable.norm()
