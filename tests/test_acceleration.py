"""The fast forms of the UNet compute what the readable one does, and no step waits for the device."""

import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from einops import rearrange

import minit2v
from minit2v import presets
from minit2v.cli import main
from minit2v.errors import UserError
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.text import TextEncoder
from minit2v.networks.unet import UNet
from minit2v.systems import acceleration
from minit2v.systems.acceleration import Replayed, compile_blocks
from minit2v.systems.modelscope import ModelScopeT2V

CPU = torch.device("cpu")
TINY = replace(presets.get("nano").unet, channels=(16, 32), attention=(True, False), head_dim=8, norm_groups=4,
               context_dim=8)  # fmt: skip


def tiny_unet(**changes) -> UNet:
    torch.manual_seed(0)
    unet = UNet(replace(TINY, **changes)).eval().requires_grad_(False)
    for parameter in unet.parameters():  # the usual start has zeros, which hide whole branches
        parameter.uniform_(-0.3, 0.3)
    return unet


def inputs(f: int = 3, h: int = 4, b: int = 2):
    generator = torch.Generator().manual_seed(f * h)
    return (torch.randn(b, 4, f, h, h, generator=generator), torch.arange(b) + 500,
            torch.randn(b, 5, 8, generator=generator))  # fmt: skip


def as_it_is(call):
    """In the place of a CUDA graph: computes the output of the call again, in its place."""
    output = call()
    return lambda: output.copy_(call()), output


def test_compiled_blocks_are_the_readable_ones():
    """With a backend that needs no C++ compiler: what is traced is what a compiler gets to see."""
    unet = tiny_unet()
    names, expected = list(unet.state_dict()), unet(*inputs())
    assert compile_blocks(unet, CPU, backend="eager")
    assert list(unet.state_dict()) == names
    with torch.inference_mode():
        torch.testing.assert_close(unet(*inputs()), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(unet(*inputs(f=1)), tiny_unet()(*inputs(f=1)), rtol=1e-4, atol=1e-4)


def test_a_block_is_one_graph():
    """A break in the graph would cost a card more than compiling gains."""
    torch.compiler.allow_in_graph(rearrange)
    unet = tiny_unet()
    block = unet.down[0].blocks[0]
    x, emb, context = torch.randn(6, 16, 4, 4), torch.randn(6, 64), torch.randn(2, 5, 8)
    with torch.inference_mode():
        expected = block(x, emb, context, 3)
        found = torch.compile(block, dynamic=False, fullgraph=True, backend="eager")(x, emb, context, 3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_without_a_compiler_one_line_and_the_readable_form(monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("no C++ compiler\nmore lines of it")

    monkeypatch.setattr(torch, "compile", broken)
    unet = tiny_unet()
    with pytest.warns(UserWarning, match=r"^compile: expected .* found RuntimeError: no C\+\+ compiler; goes on without$"):
        assert not compile_blocks(unet, CPU)
    assert unet(*inputs()).isfinite().all()


def test_a_replayed_network_is_the_network():
    """Other inputs, shapes and options than those of the capture; an output is not overwritten by the next call."""
    unet, captured = tiny_unet(), []
    replayed = Replayed(unet, capture=lambda call: captured.append(call) or as_it_is(call))
    first, second = inputs(), (2 * inputs()[0], inputs()[1] - 300, inputs()[2])
    kept = replayed(*first)
    for arguments in (first, second, inputs(f=5)):
        torch.testing.assert_close(replayed(*arguments), unet(*arguments))
    torch.testing.assert_close(replayed(*second, temporal=False), unet(*second, temporal=False))
    torch.testing.assert_close(kept, unet(*first))
    assert len(captured) == 3, "one for each set of shapes and options"


def test_a_graph_is_captured_on_the_card_of_its_inputs(monkeypatch):
    """Streams belong to the current card, which is the first one even where a process has another."""
    cards = []

    class On:
        def __init__(self, tensor):
            self.device = tensor.device

        def __enter__(self):
            cards.append(self.device)

        def __exit__(self, *_):
            cards.append("left")

    monkeypatch.setattr(torch.cuda, "device_of", On)
    Replayed(tiny_unet(), capture=lambda call: cards.append("captured") or as_it_is(call))(*inputs())
    assert cards == [CPU, "captured", "left"]


def test_only_the_layout_of_2d_convolutions_changes():
    network = torch.nn.ModuleList([torch.nn.Conv2d(2, 4, 3), torch.nn.Conv3d(2, 4, 3), torch.nn.Linear(2, 4)])
    before = [p.clone() for p in network.parameters()]
    acceleration.to_channels_last(network)
    assert all(map(torch.equal, before, network.parameters()))
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_few_graphs_are_kept():
    replayed = Replayed(tiny_unet(), capture=as_it_is, most=2)
    for f in (1, 2, 3, 1):
        replayed(*inputs(f))
    assert len(replayed.graphs) == 2


def test_maps_of_attention_are_kept_while_they_are_wanted():
    unet = tiny_unet()
    replayed, layer = Replayed(unet, capture=as_it_is), unet.first_temporal.block.attn1
    replayed(*inputs())
    layer.keep, layer.map = 2, None
    replayed(*inputs())
    assert layer.map.shape == (2, 3, 3) and len(replayed.graphs) == 1


def test_a_run_through_graphs_is_the_same_run(monkeypatch):
    import minit2v.systems.modelscope as modelscope

    monkeypatch.setattr(modelscope, "Replayed", partial(Replayed, capture=as_it_is))
    plain = minit2v.load("mini", device="cpu")
    fast = ModelScopeT2V(plain.preset, **plain.networks, graphs=True)
    options = {"steps": 2, "frames": 4, "seed": 3}
    assert (plain("a red circle moves left", **options).pixels == fast("a red circle moves left", **options).pixels).all()
    assert len(fast.replayed.graphs) == 1


@pytest.mark.parametrize("departure", [{}, {"step_embedding": True}])
@pytest.mark.parametrize("settings", [{}, {"window": 2}, {"sampler": "dpm++"}, {"eta": 1.0}])
def test_no_step_waits_for_the_device(departure, settings):
    """A tensor of the meta device has no numbers, so a step that asks for one would fail here."""
    if departure and "sampler" in settings:
        pytest.skip("a flow map takes ddim's steps")
    preset = replace(presets.get("nano"), unet=replace(TINY, **departure), height=16, width=16)
    with torch.device("meta"):
        pipe = ModelScopeT2V(preset, TextEncoder(preset.text), UNet(preset.unet), VQGAN(preset.autoencoder))
        context = torch.zeros(1, 5, 8)
    _, checked = pipe.checked(["a red circle"], {"steps": 3, "frames": 4, "guidance": 2.0} | settings)
    steps = list(pipe.steps(context, context, checked))
    assert len(steps) == 3 and steps[-1].x.device.type == "meta"


def test_where_graphs_cannot_be_used(capsys):
    with pytest.raises(UserError, match="graphs: expected a CUDA device, found cpu"):
        minit2v.load("mini", device="cpu", graphs=True)
    with pytest.raises(UserError, match="graphs: expected weights that stay on the GPU, found offload"):
        acceleration.check_graphs(torch.device("cuda"), offload=True)
    assert main(["sample", "a red circle", "--device", "cpu", "--graphs"]) == 2
    assert capsys.readouterr().err.startswith("minit2v: graphs: expected a CUDA device")


def test_compile_of_the_command_line_says_that_the_first_clip_takes_longer(monkeypatch, tmp_path, capsys):
    compiled = []
    monkeypatch.setattr("minit2v.loading.compile_blocks", lambda unet, device: compiled.append(unet))
    clip = str(tmp_path / "clip.gif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = ["--device", "cpu", "--compile", "--steps", "1", "--frames", "2", "--out", clip]
        status = main(["sample", "a red circle", *options])
    assert status == 0 and len(compiled) == 1 and "--compile: the first clip of each size compiles" in capsys.readouterr().err
