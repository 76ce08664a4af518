"""A model on disk: found, looked at once, inspected, converted and exported without a loss."""

import re
import shlex
from pathlib import Path

import pytest
import torch

import minit2v
from minit2v import presets
from minit2v.checkpoints import export
from minit2v.checkpoints.layouts import needed
from minit2v.checkpoints.source import Source
from minit2v.cli import main
from minit2v.errors import UserError
from minit2v.networks.registry import NETWORKS


@pytest.mark.parametrize("path, expected", [
    ("{d}", "UNet autoencoder text"), ("{m}", "UNet autoencoder text"),
    ("{d}/unet/diffusion_pytorch_model.safetensors", "UNet"),
    ("{d}/vae/diffusion_pytorch_model.safetensors", "autoencoder"),
    ("{d}/text_encoder/model.safetensors", "text"),
    ("{m}/text2video_pytorch_model.pth", "UNet"),
    ("{m}/VQGAN_autoencoder.pth", "autoencoder"),
    ("{m}/open_clip_pytorch_model.bin", "text"),
])  # fmt: skip
def test_inspect_counts_what_is_in_it(diffusers_folder, modelscope_folder, theirs, path, expected, capsys):
    modules = {"UNet": theirs.unet, "autoencoder": theirs.vae, "text": theirs.text_encoder}
    assert main(["weights", "inspect", path.format(d=diffusers_folder, m=modelscope_folder)]) == 0
    rows = capsys.readouterr().out.splitlines()
    found = {row.split()[0].rstrip(","): int(row.split()[-1].replace(",", "")) for row in rows if row[0] != " "}
    assert found == {name: sum(p.numel() for p in modules[name].parameters()) for name in expected.split()}


def commands_of(page: str) -> list[str]:
    """The commands that a page shows, in blocks and in sentences."""
    text = (Path(__file__).parent.parent / page).read_text()
    return [" ".join(found.split()) for found in re.findall(r"^minit2v [^#\n]*|(?<=`)minit2v [^`]* [^`]*(?=`)", text, re.M)]


def test_the_page_on_released_weights_can_be_followed(diffusers_folder, modelscope_folder, tmp_path, monkeypatch, capsys):
    """Word for word, with these small weights in the place of those of the hub, and a small clip."""
    monkeypatch.setattr("minit2v.loading.download", lambda name, half: diffusers_folder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path/to").mkdir(parents=True)
    (tmp_path / "path/to/folder").symlink_to(modelscope_folder)
    small, done = ["--frames", "2", "--steps", "2", "--height", "16", "--width", "16"], set()
    for command in commands_of("docs/released.md"):
        arguments = shlex.split(command)[1:]
        done.add(" ".join(arguments[: 1 + (arguments[0] == "weights")]))
        if arguments[1:] == ["plan"]:  # named, not shown
            continue
        assert main(arguments + (small if arguments[0] == "sample" else [])) == 0, capsys.readouterr().err
        if arguments[0] == "sample":
            assert minit2v.video.Clip.load("panda.mp4").pixels.shape == (2, 16, 16, 3)
            Path("panda.mp4").unlink()
    assert done == {"sample", "weights plan", "weights convert", "weights inspect"}
    assert minit2v.load("ms17", device="cpu").preset.unet == minit2v.load(diffusers_folder, device="cpu").preset.unet


@pytest.mark.parametrize("to", ["minit2v", "diffusers", "modelscope"])
def test_convert_writes_every_layout(diffusers_folder, tmp_path, to):
    assert main(["weights", "convert", str(diffusers_folder), str(tmp_path / "out"), "--to", to]) == 0
    assert Source(tmp_path / "out").layout == to
    before, after = (minit2v.load(folder, device="cpu") for folder in (diffusers_folder, tmp_path / "out"))
    for name in NETWORKS:
        state, returned = getattr(before, name).state_dict(), getattr(after, name).state_dict()
        assert state.keys() == returned.keys() and all(torch.equal(state[key], returned[key]) for key in state)


def test_departures_have_no_place_in_other_layouts(tmp_path):
    preset = presets.get("nano")
    parts = {name: build(getattr(preset, name)) for name, build in NETWORKS.items()}
    with pytest.raises(UserError, match="departures|shift|vocabulary|whole"):
        export.export(tmp_path / "out", "diffusers", preset, **parts)
    assert not (tmp_path / "out").exists()


def test_only_what_is_needed_is_downloaded():
    files = ["README.md", "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.bin",
             "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.safetensors",
             "vae/config.json", "vae/diffusion_pytorch_model.bin", "text_encoder/config.json",
             "text_encoder/model.safetensors", "scheduler/scheduler_config.json", "tokenizer/vocab.json",
             "tokenizer/tokenizer_config.json", "clip.mp4"]  # fmt: skip
    halves = set(needed(files, half=True))
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in halves and "vae/diffusion_pytorch_model.bin" in halves
    assert {name for name in files if name.endswith("config.json")} <= halves
    others = {"README.md", "clip.mp4", "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors"}
    assert not halves & {*others, "tokenizer/vocab.json"}
    assert "unet/diffusion_pytorch_model.safetensors" in needed(files, half=False)
    stem, ending = "unet/diffusion_pytorch_model", "-00001-of-00002.safetensors"
    parts = [f"{stem}{ending}", f"{stem}.fp16{ending}", f"{stem}.safetensors.index.json",
             f"{stem}.safetensors.index.fp16.json", *(name for name in files if "unet/d" not in name)]  # fmt: skip
    whole, halves = (set(needed(parts, half)) for half in (False, True))
    assert {parts[0], parts[2]} <= whole and parts[1] not in whole
    assert {parts[1], parts[3]} <= halves and parts[0] not in halves


def test_our_own_layout_and_modelscope_s_are_known_on_the_hub():
    ours = ["config.json", "unet.safetensors", "autoencoder.safetensors", "text.safetensors"]
    assert sorted(needed(["README.md", *ours, "report.json"], half=True)) == sorted(ours)
    theirs = ["configuration.json", "text2video_pytorch_model.pth", "VQGAN_autoencoder.pth", "open_clip_pytorch_model.bin"]
    assert sorted(needed(["README.md", *theirs], half=False)) == sorted(theirs)
    for incomplete in (ours[:-1], theirs[:-1], ["README.md"]):
        with pytest.raises(UserError, match="found no (text|unet)"):
            needed(incomplete, half=False)
