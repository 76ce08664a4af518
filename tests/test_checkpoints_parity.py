"""Released weights: every layout loads, equals the public implementations, and goes back bit for bit."""

import json
import re

import numpy as np
import pytest
import torch
from released import modelscope_unet_name
from safetensors.torch import load_file, save_file

import minit2v
from minit2v import presets
from minit2v.checkpoints import export
from minit2v.checkpoints.foreign import DROPPED, bare
from minit2v.checkpoints.layouts import FOLDERS
from minit2v.checkpoints.load import load_autoencoder, load_network, load_text, load_unet
from minit2v.checkpoints.names import names
from minit2v.checkpoints.source import Source
from minit2v.cli import main
from minit2v.systems import build


@pytest.mark.parametrize("b, f, h, w", [(2, 1, 8, 8), (2, 3, 8, 12), (1, 16, 8, 8), (1, 17, 6, 10)])
def test_unet_equals_diffusers(folder, theirs, b, f, h, w):
    ours, reference = load_unet(folder, torch.float64), theirs.unet.double()
    generator = torch.Generator().manual_seed(f)
    x, context = torch.randn(b, 4, f, h, w, generator=generator), torch.randn(b, 5, 32, generator=generator)
    t = torch.tensor([981, 3])[:b]
    with torch.no_grad():
        difference = ours(x.double(), t, context.double()) - reference(x.double(), t, context.double()).sample
    theirs.unet.float()
    assert difference.abs().max() < 1e-6


def test_autoencoder_equals_diffusers(folder, theirs):
    ours, reference = load_autoencoder(folder, torch.float64), theirs.vae.double()
    frames = torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    with torch.no_grad():
        latents = ours.encode(frames)
        assert (latents - reference.encode(frames).latent_dist.mean).abs().max() < 1e-5
        assert (ours.decode(latents) - reference.decode(latents).sample).abs().max() < 1e-5
    theirs.vae.float()


def test_text_equals_transformers(folder, theirs, float64_by_default):
    ours, reference = load_text(folder, torch.float64), theirs.text_encoder.double()
    prompts = ["A panda, eating bamboo on a rock.", ""]
    ids = theirs.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    assert (ours.tokens(prompts) == ids).all()
    with torch.no_grad():
        assert (ours.encode(prompts) - reference(ids)[0]).abs().max() < 1e-6
    theirs.text_encoder.float()


def test_pipeline_equals_diffusers(folder, theirs):
    """The same noise, 20 DDIM steps, guidance 9, an odd size: the pixels differ by rounding alone."""
    noise = torch.randn(1, 4, 5, 8, 12, generator=torch.Generator().manual_seed(3))
    options = {"height": 16, "width": 24, "num_inference_steps": 20, "guidance_scale": 9.0, "num_frames": 5}
    expected = theirs("a panda", latents=noise.clone(), output_type="np", **options).frames[0]
    pipe = minit2v.load(folder, device="cpu")
    clip = pipe("a panda", noise=noise, steps=20, guidance=9.0, frames=5, height=16, width=24)
    assert np.abs(clip.pixels.astype(int) - np.floor(expected * 255)).max() <= 2
    assert expected.std() > 0.05, "the picture is not flat"


def test_sample_makes_a_video(folder, tmp_path):
    out = tmp_path / "clip.mp4"
    small = ["--frames", "3", "--steps", "2", "--height", "16", "--width", "16"]
    assert main(["sample", "a panda", "--model", str(folder), "--out", str(out), *small]) == 0
    assert minit2v.video.Clip.load(out).pixels.shape == (3, 16, 16, 3)


@pytest.mark.parametrize("layout", ["diffusers", "modelscope"])
def test_goes_back_bit_for_bit(diffusers_folder, tmp_path, layout):
    before = minit2v.load(diffusers_folder, device="cpu")
    parts = before.networks
    export.export(tmp_path / "out", layout, before.preset, **parts)
    after = minit2v.load(tmp_path / "out", device="cpu")
    for name, part in parts.items():
        state, returned = part.state_dict(), getattr(after, name).state_dict()
        assert state.keys() == returned.keys() and all(torch.equal(state[key], returned[key]) for key in state)
    if layout == "diffusers":
        for network, place in FOLDERS.items():
            made, original = (Source(f).file(network) for f in (tmp_path / "out", diffusers_folder))
            made, original = ({bare(k): v for k, v in load_file(path).items()} for path in (made, original))
            assert made.keys() == original.keys() and all(torch.equal(made[key], original[key]) for key in made)


def test_diffusers_opens_what_is_exported(diffusers_folder, theirs, tmp_path):
    from diffusers import TextToVideoSDPipeline

    ours = minit2v.load(diffusers_folder, device="cpu")
    export.export(tmp_path / "out", "diffusers", ours.preset, **ours.networks)
    opened = TextToVideoSDPipeline.from_pretrained(tmp_path / "out")
    opened.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(3))
    a, b = (pipe("a panda", latents=noise.clone(), num_inference_steps=3, num_frames=2, height=16, width=16,
                 output_type="np").frames for pipe in (theirs, opened))  # fmt: skip
    assert np.allclose(a, b, atol=1e-5)


def test_released_names_are_total_and_one_to_one():
    preset = presets.get("modelscope-1.7b")
    counts = {"unet": 1480, "autoencoder": 248, "text": None}
    with torch.device("meta"):
        modules = build(preset)
    for network, module in modules.items():
        for layout in ("diffusers", "modelscope"):
            made = [part for parts in names(network, module, layout).values() for part in parts]
            assert len(made) == len(set(made))
            if counts[network]:
                assert len(made) == counts[network]
    unet = names("unet", modules["unet"], "modelscope")
    assert unet["up.2.resample.conv.weight"] == ("output_blocks.8.3.conv.weight",)
    assert unet["up.0.resample.conv.weight"] == ("output_blocks.2.1.conv.weight",)
    assert unet["down.0.blocks.1.temporal_conv.convs.0.bias"] == ("input_blocks.2.0.temopral_conv.conv1.2.bias",)


@pytest.mark.parametrize("layout", ["diffusers", "modelscope"])
def test_a_picture_model_becomes_a_video_model(diffusers_folder, modelscope_folder, theirs, tmp_path, layout):
    """Stable Diffusion's UNet: its temporal layers are the identity, so frames are independent."""
    state = theirs.unet.state_dict()
    state = {name: value for name, value in state.items() if "temp_" not in name and "transformer_in" not in name}
    if layout == "modelscope":  # without temporal layers its authors count otherwise
        state = {modelscope_unet_name(name): value for name, value in state.items()}
        lower = lambda name: re.sub(r"^middle_block\.3", "middle_block.2", name)
        state = {f"model.diffusion_model.{lower(name)}": value for name, value in state.items()}
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "sd.safetensors")
    config = load_unet(diffusers_folder).config
    unet = load_network("unet", tmp_path / "sd.safetensors", torch.float32, "cpu", config)
    whole = load_unet(diffusers_folder)
    x, t, context = torch.randn(1, 4, 3, 8, 8), torch.tensor([500]), torch.randn(1, 5, 32)
    with torch.no_grad():
        assert torch.allclose(unet(x, t, context), whole(x, t, context, temporal=False), atol=1e-5)


@pytest.mark.parametrize("layout", ["diffusers", "modelscope"])
def test_the_manifest_is_the_structure(layout):
    """Every tensor of the released files, as the public implementations name and shape it, is one of ours, and the
    other way round; counts of parameters too."""
    manifest = json.loads((minit2v.files.data_dir() / "released_manifest.json").read_text())[layout]
    preset = presets.get("modelscope-1.7b")
    assert len(manifest["unet"]) == 1480 and len(manifest["autoencoder"]) == 248
    parameters = {"unet": 1_411_233_860, "autoencoder": 83_653_863, "text": 340_387_840}
    with torch.device("meta"):
        modules = build(preset)
    for network, module in modules.items():
        shapes = {bare(name): shape for name, shape in manifest[network].items()}
        state, table = module.state_dict(), names(network, module, layout)
        for key, parts in table.items():
            together = [sum(shapes[part][0] for part in parts), *shapes[parts[0]][1:]] if shapes[parts[0]] else []
            axes = export.axes(network, key, layout, state[key].ndim)
            assert together == [*state[key].shape, *[1] * (axes - state[key].ndim)], key
        left = set(shapes) - {part for parts in table.values() for part in parts}
        assert all(DROPPED.match(name) or "resblocks.23." in name for name in left), left
        assert sum(value.numel() for value in state.values()) == parameters[network]
