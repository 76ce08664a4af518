"""A model on disk: found, looked at once, inspected, converted and exported without a loss."""

import json
import re
import shlex
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from released import TINY, redrawn

import minit2v
from minit2v import presets
from minit2v.checkpoints import export, reading
from minit2v.checkpoints import source as source_module
from minit2v.checkpoints.find import fingerprint
from minit2v.checkpoints.folder import save_model
from minit2v.checkpoints.layouts import FILES, FOLDERS, needed
from minit2v.checkpoints.load import load_autoencoder, load_text, load_unet
from minit2v.checkpoints.source import Source
from minit2v.cli import main
from minit2v.errors import UserError
from minit2v.presets import DiffusionConfig, Preset, TextConfig, UNetConfig
from minit2v.systems import SYSTEMS, System, TextToVideo, build
from minit2v.systems.modelscope import ModelScopeT2V


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
    table, _, digests = capsys.readouterr().out.partition("\n\n")
    rows = table.splitlines()
    assert digests.rstrip().endswith(": no sha256 in the file to compare with")
    found = {row.split()[0].rstrip(","): int(row.split()[-1].replace(",", "")) for row in rows if row[0] != " "}
    assert found == {name: sum(p.numel() for p in modules[name].parameters()) for name in expected.split()}


def commands_of(page: str) -> list[str]:
    """The commands that a page shows, in blocks and in sentences."""
    text = (Path(__file__).parent.parent / page).read_text()
    found = re.findall(r"^minit2v [^#\n]*|(?<=`)minit2v [^`]* [^`]*(?=`)", text, re.M)
    return [" ".join(command.split()) for command in found]


def test_the_page_can_be_followed(diffusers_folder, modelscope_folder, tmp_path, monkeypatch, capsys):
    """Word for word, with these small weights in the place of those of the hub, and a small clip."""
    monkeypatch.setattr("minit2v.checkpoints.hub.download", lambda name, half, revision: diffusers_folder)
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
    for name in SYSTEMS["modelscope"].networks:
        state, returned = getattr(before, name).state_dict(), getattr(after, name).state_dict()
        assert state.keys() == returned.keys() and all(torch.equal(state[key], returned[key]) for key in state)


@pytest.mark.parametrize("to", ["minit2v", "diffusers", "modelscope", "onnx"])
def test_a_conversion_that_stops_leaves_nothing(untrained_nano, diffusers_folder, tmp_path, monkeypatch, to):
    source = diffusers_folder if to in ("diffusers", "modelscope") else untrained_nano
    command = ["weights", "convert", str(source), str(tmp_path / "a/out"), "--to", to]
    written, real = [], Path.replace

    def full(path, place):
        if len(written) == 2:  # in the midst of it
            raise OSError(28, "No space left on device")
        written.append(place)
        return real(Path(path), place)

    with monkeypatch.context() as patch:
        patch.setattr("minit2v.files.os.replace", full)
        assert main(command) == 2
    assert len(written) == 2 and not list((tmp_path / "a").iterdir())
    assert main(command) == 0
    assert to == "onnx" or Source(tmp_path / "a/out").networks
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


@pytest.mark.parametrize("place", ["file/out", "/proc/out", "link", "full"])
def test_a_place_that_cannot_be_written_is_found_before_a_model_is_loaded(tmp_path, monkeypatch, capsys, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("")
    monkeypatch.setattr("minit2v.load", lambda *_, **__: pytest.fail("a model was loaded"))
    assert main(["weights", "convert", "mini", str(tmp_path / place), "--to", "minit2v"]) == 2
    assert place in capsys.readouterr().err


@pytest.mark.parametrize("place", ["guidance", "unet.norm_groups", "text.heads", "diffusion", "diffusion.snr_shift"])
def test_a_setting_that_is_cut_out_is_named(untrained_nano, tmp_path, place):
    """No tensor tells it, and what would be taken in its place makes another clip."""
    folder = tmp_path / "model"
    shutil.copytree(untrained_nano, folder)
    content = inner = json.loads((folder / "config.json").read_text())
    *parents, name = place.split(".")
    for parent in parents:
        inner = inner[parent]
    del inner[name]
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=f"says nothing of {place}, so the paper's values are taken"):
        Source(folder).preset


def test_names_of_older_files_are_read_without_a_word(untrained_nano, tmp_path, recwarn):
    folder = tmp_path / "model"
    shutil.copytree(untrained_nano, folder)
    content = json.loads((folder / "config.json").read_text())
    content["unet"]["layout"], content["diffusion"]["steps"] = content["unet"].pop("scene_prior"), content["diffusion"].pop("timesteps")
    (folder / "config.json").write_text(json.dumps(content))
    assert Source(folder).preset == Source(untrained_nano).preset and not recwarn.list


@pytest.mark.parametrize("line", [
    ["distill", "videoldm", "--out", "out"], ["train", "unet", "--from", "videoldm", "--lora", "4", "--out", "out"],
    ["weights", "convert", "videoldm", "out", "--to", "diffusers"],
])  # fmt: skip
def test_a_system_that_goes_on_from_modelscope_is_not_taken_for_it(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(line) == 2 and not (tmp_path / "out").exists()
    assert re.search("expected a model of (the system )?modelscope, found .*videoldm", capsys.readouterr().err)


@pytest.mark.parametrize("place, value", [
    ("guidance", 10**400), ("autoencoder.scale_factor", 10**400), ("diffusion.snr_shift", 10**400),
    ("diffusion.snr_shift", 1e-300), ("text.pad_token", 49_408), ("text.pad_token", 2**31),
])  # fmt: skip
def test_a_number_that_no_computation_bears_is_named(untrained_nano, tmp_path, capsys, place, value):
    folder = tmp_path / "model"
    shutil.copytree(untrained_nano, folder)
    content = inner = json.loads((folder / "config.json").read_text())
    *parents, name = place.split(".")
    for parent in parents:
        inner = inner[parent]
    inner[name] = value
    (folder / "config.json").write_text(json.dumps(content))
    assert main(["sample", "a red circle moves left", "--model", str(folder), "--out", str(tmp_path / "clip.mp4")]) == 2
    assert f"{name}: expected" in capsys.readouterr().err
    with pytest.raises(UserError, match="guidance: expected a finite number"):
        minit2v.load(untrained_nano, device="cpu")("a red circle moves left", guidance=10**400)


def test_departures_have_no_place_in_other_layouts(tmp_path):
    preset = presets.get("nano")
    parts = build(preset)
    with pytest.raises(UserError, match="departures|shift|vocabulary|whole"):
        export.export(tmp_path / "out", "diffusers", preset, **parts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("network, name", [
    (network, field.name) for network, config in (("unet", UNetConfig), ("text", TextConfig))
    for field in fields(config) if field.default is False
])  # fmt: skip
def test_no_departure_of_a_network_is_passed_over(network, name):
    """Every switch that is off in the release: with it on, other programs would compute something else."""
    preset = presets.get("nano")
    settings = {"unet": replace(preset.unet, **{f.name: False for f in fields(UNetConfig) if f.default is False}),
                "text": replace(preset.text, looks_first=False)}  # fmt: skip
    module = SYSTEMS["modelscope"].networks[network](replace(settings[network], **{name: True}))
    with pytest.raises(UserError, match=rf"departures \({name}\): diffusers has none"):
        export.tensors_for(network, module, "diffusers")


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
    theirs = ["configuration.json", *FILES.values()]
    assert sorted(needed(["README.md", *theirs], half=False)) == sorted(theirs)
    for incomplete in (ours[:-1], theirs[:-1], ["README.md"]):
        with pytest.raises(UserError, match="found no (text|unet)"):
            needed(incomplete, half=False)


@pytest.fixture(scope="module")
def layouts(diffusers_folder, modelscope_folder, tmp_path_factory):
    """The same model in the three layouts."""
    folder = tmp_path_factory.mktemp("ours")
    pipe = minit2v.load(diffusers_folder, device="cpu")
    save_model(folder, pipe.preset, **pipe.networks)
    return {"minit2v": folder, "diffusers": diffusers_folder, "modelscope": modelscope_folder}


@pytest.mark.parametrize("layout", ["minit2v", "diffusers", "modelscope"])
def test_a_folder_is_looked_at_once(layouts, monkeypatch, layout):
    """Loading asks one time which layout it is, and opens each file of weights one time."""
    asked, opened = [], []
    counted = lambda function, calls: lambda *a, **k: (calls.append(a[0]), function(*a, **k))[1]
    monkeypatch.setattr(source_module, "layout_of", counted(source_module.layout_of, asked))
    for name in ("_safetensors", "_pickled"):
        monkeypatch.setattr(reading, name, counted(getattr(reading, name), opened))
    pipe = minit2v.load(layouts[layout], device="cpu")
    assert len(asked) == 1
    assert len(opened) == len(set(opened)) == len(pipe.networks) == 3


def test_after_forgetting_a_file_is_opened_again(layouts, monkeypatch):
    tensors = reading.read(layouts["minit2v"] / "unet.safetensors")
    before = tensors["conv_in.weight"].clone()
    tensors.forget()
    assert torch.equal(tensors["conv_in.weight"], before)


@pytest.mark.parametrize("name, error", [
    ("runs/mini", "found no folder runs/mini; check the path"), ("./owner/name", "found no folder ./owner/name"),
    ("../owner/name", "found no folder"), ("~/model", "found no folder ~/model"), ("a/b/c", "found no folder a/b/c"),
    ("owner/unet.safetensors", "found no folder"), ("nowhere", "unknown model 'nowhere'; shipped are cogvideo"),
    ("runs", "found none of these in runs"), ("runs/note.txt", "found the file runs/note.txt"),
])  # fmt: skip
def test_what_can_be_a_path_does_not_go_to_the_network(tmp_path, monkeypatch, name, error):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minit2v.checkpoints.hub.download", lambda *_, **__: pytest.fail("asked the network"))
    Path("runs").mkdir()
    Path("runs/note.txt").touch()
    with pytest.raises(UserError) as caught:
        minit2v.load(name)
    assert error in str(caught.value) and "\n" not in str(caught.value)


def test_offline_a_name_of_the_hub_may_be_a_folder_that_is_missing(monkeypatch, tmp_path):
    import huggingface_hub

    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", offline)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match="found no folder owner/name here, and could not get .* hub .no route to host"):
        minit2v.load("owner/name")


def test_a_network_that_is_not_trained_yet_is_named(layouts, tmp_path):
    for name in ("config.json", "autoencoder.safetensors", "text.safetensors"):
        shutil.copy(layouts["minit2v"] / name, tmp_path)
    for use in (lambda: minit2v.load(tmp_path, device="cpu"), lambda: fingerprint(tmp_path)):
        with pytest.raises(UserError, match="expected unet.safetensors in .*, found none; get the model again"):
            use()


@pytest.mark.parametrize("layout", ["minit2v", "diffusers", "modelscope"])
def test_a_fingerprint_says_whether_two_folders_are_one_model(layouts, tmp_path, layout):
    folder = Path(shutil.copytree(layouts[layout], tmp_path / "copy"))
    assert fingerprint(folder) == fingerprint(layouts[layout])
    (folder / "note.txt").write_text("read by nobody")
    assert fingerprint(folder) == fingerprint(layouts[layout])
    changed = next(path for path in folder.rglob("*config*.json"))
    changed.write_text(changed.read_text() + " ")
    assert fingerprint(folder) != fingerprint(layouts[layout])


# every setting that a layout has a place for, and those that only this library reads
EVERYTHING = replace(
    TINY, name="everything", frames=3, fps=12, steps=4, guidance=3.5, negative="ugly", width=32,
    unet=replace(TINY.unet, dropout=0.25), autoencoder=replace(TINY.autoencoder, scale_factor=0.3, norm_groups=4),
    text=replace(TINY.text, layers=3, skip_last=1, embed_dim=48),
)  # fmt: skip
SCHEDULES = {
    "released": DiffusionConfig(), "prediction": DiffusionConfig(500, prediction="x0"),
    "cosine": DiffusionConfig(schedule="cosine", prediction="v", spacing="trailing", ends_clean=True),
    "zero": DiffusionConfig(prediction="v", zero_terminal_snr=True, spacing="linspace", steps_offset=0),
}  # fmt: skip


@pytest.mark.parametrize("layout, preset", [
    *(("diffusers", replace(EVERYTHING, diffusion=diffusion)) for diffusion in SCHEDULES.values()),
    ("diffusers", replace(EVERYTHING, text=replace(TINY.text, activation="quick_gelu", pad_token=49407,
                                                   added_tokens=("<my-cat>",)))),
    *(("modelscope", replace(EVERYTHING, diffusion=SCHEDULES[name])) for name in ("released", "prediction")),
    ("modelscope", replace(EVERYTHING, unet=replace(EVERYTHING.unet, first_temporal_heads=4))),
])  # fmt: skip
def test_what_is_exported_comes_back_whole(tmp_path, layout, preset):
    torch.manual_seed(0)
    parts = {name: redrawn(network) for name, network in build(preset).items()}
    before = ModelScopeT2V(preset, **parts)
    export.export(tmp_path / "out", layout, preset, **parts)
    after = minit2v.load(tmp_path / "out", device="cpu")
    assert after.preset == preset
    for name, part in parts.items():
        state = getattr(after, name).state_dict()
        assert all(torch.equal(value, state[key]) for key, value in part.state_dict().items())
    assert (before("a <my-cat>").pixels == after("a <my-cat>").pixels).all()
    for name, load in (("unet", load_unet), ("autoencoder", load_autoencoder), ("text", load_text)):
        assert load(tmp_path / "out").config == getattr(preset, name), "one network alone is the same one"


def test_diffusers_opens_what_is_exported_and_makes_the_same(tmp_path):
    """Its own scheduler from the folder, 20 trailing steps of a cosine schedule, which both sample alike."""
    from diffusers import TextToVideoSDPipeline

    preset = replace(EVERYTHING, diffusion=SCHEDULES["cosine"], text=replace(TINY.text, pad_token=49407))
    parts = {name: redrawn(network) for name, network in build(preset).items()}
    export.export(tmp_path / "out", "diffusers", preset, **parts)
    theirs = TextToVideoSDPipeline.from_pretrained(tmp_path / "out")
    theirs.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(3))
    expected = theirs("a panda", latents=noise.clone(), num_inference_steps=20, num_frames=2, height=16, width=16,
                      guidance_scale=3.5, negative_prompt="ugly", output_type="np").frames[0]  # fmt: skip
    clip = ModelScopeT2V(preset, **parts)("a panda", noise=noise, steps=20, frames=2, height=16, width=16)
    assert np.abs(clip.pixels.astype(int) - np.floor(expected * 255)).max() <= 2


@pytest.mark.parametrize("layout, changes, found", [
    ("diffusers", {"autoencoder": {"bottleneck": "codebook"}}, "found codebook: diffusers has no place"),
    ("modelscope", {"autoencoder": {"bottleneck": "codebook"}}, "found codebook: modelscope has no place"),
    ("diffusers", {"unet": {"first_temporal_heads": 4}}, "expected 8 heads .* found 4"),
    ("diffusers", {"diffusion": {"snr_shift": 2.0}}, "found 2.0"),
    ("modelscope", {"diffusion": {"schedule": "cosine"}}, "the released schedule, found .'cosine'"),
    ("modelscope", {"diffusion": {"spacing": "trailing"}}, "the released timesteps, found .'trailing'"),
    ("modelscope", {"diffusion": {"prediction": "v"}}, "eps or x0 as prediction, found v"),
    ("modelscope", {"text": {"activation": "quick_gelu"}}, "found quick_gelu"),
    ("modelscope", {"unet": {"channels": (16, 24)}}, "whole multiples"),
    ("flax", {}, "expected diffusers or modelscope, found 'flax'"),
])  # fmt: skip
def test_what_a_layout_cannot_say_is_refused_before_anything_is_written(tmp_path, layout, changes, found):
    preset = replace(TINY, **{name: replace(getattr(TINY, name), **fields) for name, fields in changes.items()})
    with pytest.raises(UserError, match=found):
        export.export(tmp_path / "out", layout, preset, **dict.fromkeys(FOLDERS, torch.nn.Identity()))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("entry", [{"unet": {"channels": "x"}}, {"unet": 3}, {"frames": "16"}, {"system": "other"},
                                   {"unknown": 1}, {"text": {"words": 5}}])  # fmt: skip
def test_a_damaged_entry_is_refused(diffusers_folder, tmp_path, entry):
    folder = Path(shutil.copytree(diffusers_folder, tmp_path / "model"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_minit2v": entry}))
    with pytest.raises(UserError) as caught:
        Source(folder).preset
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entry", [None, [], "text", 3])
def test_an_entry_that_is_none_is_ignored(diffusers_folder, tmp_path, entry):
    folder = Path(shutil.copytree(diffusers_folder, tmp_path / "model"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_minit2v": entry}))
    assert replace(Source(folder).preset, name="") == replace(Source(diffusers_folder).preset, name="")


@dataclass(frozen=True)
class CurveConfig:
    width: int = 3


class Curve(torch.nn.Module):
    """A network that no table of names knows, with a buffer that no file has and a name that others would strip."""

    def __init__(self, config):
        super().__init__()
        self.model = torch.nn.Linear(config.width, 2)
        self.register_buffer("times", torch.arange(config.width) / config.width, persistent=False)

    def forward(self, x):
        return self.model(x * self.times)


@dataclass(frozen=True)
class CurvePreset(Preset):
    system: str = "curves"
    mean: CurveConfig = CurveConfig()
    spread: CurveConfig = CurveConfig()


class Curves(ModelScopeT2V):
    def __init__(self, preset, **networks):
        TextToVideo.__init__(self, preset, **networks)


@pytest.fixture
def curves(monkeypatch):
    monkeypatch.setitem(SYSTEMS, "curves", System({"mean": Curve, "spread": Curve}, Curves, {}, {}))


def test_networks_of_any_system_load_from_a_folder_of_ours(curves, tmp_path, capsys):
    parts = {name: redrawn(Curve(CurveConfig())) for name in ("mean", "spread")}
    preset = CurvePreset("mine", frames=4)
    save_model(tmp_path / "mine", preset, **parts)
    source = Source(tmp_path / "mine")
    assert source.layout == "minit2v" and source.networks == ("mean", "spread") and len(fingerprint(source.path)) == 12
    files = ["config.json", "mean.safetensors", "spread.safetensors"]
    assert sorted(needed([*files, "README.md"], half=True)) == files
    pipe = minit2v.load(tmp_path / "mine", device="cpu")
    assert pipe.preset == preset and type(pipe) is Curves
    x = torch.ones(1, 3)
    assert all(torch.equal(pipe.networks[name](x), part(x)) for name, part in parts.items())
    assert main(["weights", "inspect", str(tmp_path / "mine")]) == 0
    table, _, digests = capsys.readouterr().out.partition("\n\n")
    assert table.split() == ["mean", "8", "spread", "8"] and digests.count("as written") == 2
    assert main(["weights", "convert", str(tmp_path / "mine"), str(tmp_path / "out"), "--to", "diffusers"]) == 2
    assert "expected a model of modelscope, found one of curves" in capsys.readouterr().err
    assert main(["weights", "convert", str(tmp_path / "mine"), str(tmp_path / "copy"), "--to", "minit2v"]) == 0
    assert minit2v.load(tmp_path / "copy", device="cpu").preset == preset
    (tmp_path / "mine/spread.safetensors").unlink()
    with pytest.raises(UserError, match="expected spread.safetensors .* get the model again"):
        minit2v.load(tmp_path / "mine", device="cpu")


@pytest.mark.parametrize("layout", ["minit2v", "diffusers", "modelscope"])
def test_torch_s_defaults_change_nothing(layouts, layout):
    expected = minit2v.load(layouts[layout], device="cpu")
    dtype = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        found = minit2v.load(layouts[layout], device="cpu")
        ids = found.text.tokens(["a panda"])
    finally:
        torch.set_default_dtype(dtype)
        torch.set_default_device(None)
    assert torch.equal(ids, expected.text.tokens(["a panda"]))
    for name, network in expected.networks.items():
        state = getattr(found, name).state_dict()
        for key, value in network.state_dict().items():
            assert (state[key].dtype, state[key].device) == (value.dtype, value.device)
            assert torch.equal(state[key], value)


def test_a_shipped_model_may_share_files_with_another_one(untrained_nano, tmp_path, monkeypatch):
    """Only shipped ones, and only with shipped ones: a stranger's shared.json leads nowhere."""
    shipped, strange = tmp_path / "data", tmp_path / "strange"
    for folder in (shipped / "whole", shipped / "part", strange):
        shutil.copytree(untrained_nano, folder)
    for folder in (shipped / "part", strange):
        (folder / "text.safetensors").unlink()
        (folder / "shared.json").write_text(json.dumps({"text": "whole"}))
    monkeypatch.setattr("minit2v.checkpoints.source.data_dir", lambda: shipped)
    whole, part = (Source(shipped / name) for name in ("whole", "part"))
    assert whole.file("text") == part.file("text") and part.file("unet").parent == shipped / "part"
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(whole["text"].tensors.items(), part["text"].tensors.items()))
    with pytest.raises(UserError, match="expected text.safetensors in .*strange, found none"):
        Source(strange).file("text")
    (shipped / "part" / "unet.safetensors").unlink()
    with pytest.raises(UserError, match="expected unet.safetensors in .*part, found none"):
        Source(shipped / "part").file("unet")
    for owner in ("../../strange", "no such model", [], {}, 3, None):
        (shipped / "part" / "shared.json").write_text(json.dumps({"text": owner}))
        with pytest.raises(UserError, match="shared.json is damaged: expected text to be of a shipped model, found"):
            Source(shipped / "part").file("text")
