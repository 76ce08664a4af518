"""A model as ONNX files computes what the model does, and takes half of the room."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from released import redrawn

from minit2v import presets
from minit2v.checkpoints.onnx_export import export_onnx, token_table
from minit2v.datasets.moving_things.phrases import motion_words
from minit2v.errors import UserError
from minit2v.networks.text import Tokenizer
from minit2v.systems import build, find_preset, system_of

PROMPT = "a red ring moves left slowly"


def small(looks_first: bool, step_embedding: bool):
    """A model of nano's kind with random weights, four frames long."""
    nano = presets.get("nano")
    unet = replace(nano.unet, channels=(16, 32), looks_first=looks_first, step_embedding=step_embedding)
    text = replace(nano.text, looks_first=looks_first, motion_words=tuple(motion_words()) if looks_first else ())
    preset = replace(nano, frames=4, unet=unet, text=text)
    return system_of(preset).pipeline(preset, **{name: redrawn(network) for name, network in build(preset).items()})


@pytest.mark.parametrize("departures", [False, True], ids=["plain", "looks-first-and-steps"])
def test_the_files_compute_what_the_model_does(tmp_path, departures):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    pipe = small(departures, departures)
    for network in pipe.networks.values():
        network.half().float()  # so that the file has the same numbers
    folder = export_onnx(tmp_path / "onnx", pipe.preset, **pipe.networks)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1

    def run(name, **inputs):
        session = runtime.InferenceSession(folder / f"{name}.onnx", options)
        assert {each.name for each in session.get_inputs()} == inputs.keys()
        return torch.from_numpy(session.run(None, inputs)[0])

    ids = lambda prompt: pipe.text.tokens([prompt]).numpy().astype(np.int32)
    looks = {"looks": ids(pipe.text.looks(PROMPT))} if departures else {}
    context = pipe.text.encode([PROMPT])
    torch.testing.assert_close(run("text", tokens=ids(PROMPT), **looks), context, rtol=0, atol=1e-5)

    x = torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    t, until = (torch.tensor([value], dtype=torch.int32) for value in (583, 251))
    with torch.no_grad():
        expected = pipe.unet(x, t, context, until=until)
    inputs = {"x": x.numpy(), "t": t.numpy(), "context": context.numpy()} | ({"until": until.numpy()} if departures else {})
    torch.testing.assert_close(run("unet", **inputs), expected, rtol=0, atol=1e-4 * expected.abs().max().item())

    frames = x[0].transpose(0, 1).contiguous()  # (c f h w) -> (f c h w)
    apart = run("decoder", latents=frames.numpy()).int() - torch.from_numpy(pipe.decode(x)[0]).int()
    assert apart.abs().max() <= 1

    numbers = sum(p.numel() for name, network in pipe.networks.items() for key, p in network.named_parameters()
                  if not key.startswith(("encoder.", "quant_conv.")))  # fmt: skip
    assert sum(path.stat().st_size for path in folder.glob("*.onnx")) < 3 * numbers  # bytes; float32 takes four, float16 two
    config = json.loads((folder / "config.json").read_text())
    assert presets.Preset.from_dict({key: value for key, value in config.items() if key != "tokens"}) == pipe.preset


def test_the_table_says_what_the_tokenizer_does():
    tokenizer = Tokenizer(20, words=("moves", "triangle", "downwards", "a"))
    table = token_table(tokenizer)
    for prompt in ("", "a triangle", "Triangle, moves downwards."):
        words = [word for word in prompt.lower().replace(",", "").replace(".", "").split()]
        ids = [table["start"], *(i for word in words for i in table["words"][word]), table["end"]]
        assert tokenizer([prompt])[0].tolist() == ids + [table["pad"]] * (20 - len(ids))


def test_what_has_no_place_is_refused_before_any_work(tmp_path):
    with pytest.raises(UserError, match="expected a model of modelscope, found one of nuwa: .*choose minit2v"):
        export_onnx(tmp_path / "one", find_preset("nuwa"))
    with pytest.raises(UserError, match="expected a model with a vocabulary of its own, found CLIP's whole one"):
        export_onnx(tmp_path / "two", presets.get("modelscope-1.7b"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(UserError, match="expected a folder that is empty"):
        export_onnx(tmp_path / "full", presets.get("nano"))
    assert not (tmp_path / "one").exists() and not (tmp_path / "two").exists()
