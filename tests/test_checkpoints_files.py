"""Files of any origin: all variants load, hostile ones are refused and nothing in them runs, foreign ones get help."""

import hashlib
import json
import math
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from released import TINY
from safetensors.torch import load_file, save_file

from minit2v import presets
from minit2v.checkpoints import reading
from minit2v.checkpoints.folder import read_preset, save_preset
from minit2v.checkpoints.foreign import LEGACY_NAMES, bare
from minit2v.checkpoints.load import load_autoencoder, load_network, load_text, load_unet
from minit2v.checkpoints.source import Source
from minit2v.cli import main
from minit2v.errors import UserError
from minit2v.files import read_text
from minit2v.systems import SYSTEMS
from minit2v.video import Clip


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def variant_half(folder):
    for path in folder.rglob("*.safetensors"):
        save_file({name: value.half() for name, value in load_file(path).items()},
                  path.with_name(f"{path.stem}.fp16.safetensors"))  # fmt: skip
        path.unlink()


def variant_bin(folder):
    for path in folder.rglob("*.safetensors"):
        name = "pytorch_model.bin" if path.stem == "model" else f"{path.stem}.bin"
        torch.save(load_file(path), path.with_name(name))
        path.unlink()


def variant_sharded(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    keys, weight_map = sorted(state), {}
    for i in range(3):
        name = f"{path.stem}-0000{i + 1}-of-00003.safetensors"
        save_file({key: state[key] for key in keys[i::3]}, path.with_name(name))
        weight_map |= {key: name for key in keys[i::3]}
    path.with_name(f"{path.name}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    path.unlink()


def variant_sharded_half(folder):
    """Parts and their index as diffusers and transformers name them with variant="fp16"."""
    for place, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        path = folder / place / f"{stem}.safetensors"
        state, weight_map = load_file(path), {}
        for i, keys in enumerate((sorted(state)[::2], sorted(state)[1::2]), 1):
            name = f"{stem}.fp16-0000{i}-of-00002.safetensors"
            save_file({key: state[key].half() for key in keys}, path.with_name(name))
            weight_map |= {key: name for key in keys}
        index = path.with_name(f"{stem}.safetensors.index.fp16.json")
        index.write_text(json.dumps({"weight_map": weight_map}))
        path.unlink()


def variant_no_prefix(folder):
    path = folder / "text_encoder" / "model.safetensors"
    save_file({bare(name): value for name, value in load_file(path).items()}, path)


def variant_old_names(folder):
    path, old = folder / "vae" / "diffusion_pytorch_model.safetensors", {new: old for old, new in LEGACY_NAMES.items()}
    rename = lambda name: re.sub(r"to_q|to_k|to_v|to_out\.0", lambda m: old[m[0]], name)
    save_file({rename(name): value for name, value in load_file(path).items()}, path)


def variant_prefix(folder):
    path = folder / "text_encoder" / "model.safetensors"
    state = {f"text_model.{bare(name)}": value for name, value in load_file(path).items()}
    save_file(state | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, path)


def variant_fine_tune(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"unet": ["models.unet_3d_condition", None]}))
    config = json.loads((folder / "unet/config.json").read_text())
    odd = {"_class_name": "Odd", "center_input_sample": False, "class_embed_type": None, "mid_block_type": "x"}
    (folder / "unet/config.json").write_text(json.dumps(config | odd))


def variant_training_checkpoint(folder):
    path = folder / "text2video_pytorch_model.pth"
    state = {f"module.{name}": value for name, value in torch.load(path).items()}
    torch.save({"state_dict": state, "step": 267_000}, path)


@pytest.mark.parametrize("change", [
    variant_half, variant_bin, variant_sharded, variant_sharded_half, variant_old_names, variant_prefix,
    variant_no_prefix, variant_fine_tune, variant_training_checkpoint,
])  # fmt: skip
def test_variants_of_a_folder_load_the_same(diffusers_folder, modelscope_folder, tmp_path, change):
    original = modelscope_folder if change is variant_training_checkpoint else diffusers_folder
    changed = copied(original, tmp_path / "changed")
    change(changed)
    for network in SYSTEMS["modelscope"].networks:
        a, b = (load_network(network, f, torch.float32, "cpu").state_dict() for f in (original, changed))
        tolerance = 1e-3 if change in (variant_half, variant_sharded_half) else 0
        assert all(torch.allclose(a[key], b[key], rtol=tolerance, atol=tolerance) for key in a)


def worse(state):
    """The same names, other numbers: the last weights of a training whose averages are the good ones."""
    return {name: value + 1 if value.is_floating_point() else value for name, value in state.items()}


def prefixed(state, *prefixes):
    return {prefix + name: value for prefix in prefixes for name, value in state.items()}


DRESSED = {  # what training programs make of a file of weights -> whether a line says something
    "module.": (lambda state: prefixed(state, "module."), None),
    "_orig_mod.": (lambda state: prefixed(state, "_orig_mod."), None),
    "model.": (lambda state: prefixed(state, "model."), None),
    "unet.": (lambda state: prefixed(state, "unet."), None),
    "several prefixes": (lambda state: prefixed(state, "module._orig_mod.model.unet."), None),
    "compiled blocks": (
        lambda state: {key.replace("down_blocks.0.", "down_blocks.0._orig_mod."): v for key, v in state.items()}, None,
    ),
    "state_dict": (lambda state: {"state_dict": state, "step": 3}, None),
    "model": (lambda state: {"model": prefixed(state, "module."), "optimizer": {"a": torch.zeros(3)}}, None),
    "ema": (lambda state: {"model": worse(state), "ema": state}, "averaged weights .*'ema'"),
    "ema in a wrapper": (lambda state: {"ema_state_dict": {"module": state}, "state_dict": worse(state)}, "averaged"),
    "ema that holds no weights": (lambda state: {"state_dict": state, "ema": {"decay": torch.tensor(0.9)}}, None),
    "model_ema. beside model.": (
        lambda state: prefixed(worse(state), "model.") | prefixed(state, "model_ema.")
        | {"model_ema.decay": torch.ones(())},
        "averaged weights of the unet",
    ),
    "model_ema. without dots": (
        lambda state: prefixed(worse(state), "model.diffusion_model.") | {"model_ema.num_updates": torch.ones(())}
        | {"model_ema." + f"diffusion_model.{name}".replace(".", ""): value for name, value in state.items()},
        "averaged weights of the unet",
    ),
    "ema_model. of ema-pytorch": (
        lambda state: prefixed(worse(state), "online_model.") | prefixed(state, "ema_model.")
        | {"initted": torch.ones(1)},
        "averaged",
    ),
    "ema_model. alone": (lambda state: prefixed(state, "ema_model.") | {"step": torch.ones(1)}, "averaged"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DRESSED)
def test_what_training_programs_add_is_taken_off(diffusers_folder, tmp_path, recwarn, kind):
    state = load_file(diffusers_folder / "unet/diffusion_pytorch_model.safetensors")
    dress, line = DRESSED[kind]
    torch.save(dress(state), tmp_path / "unet.pth")
    shutil.copy(diffusers_folder / "unet/config.json", tmp_path)
    found, expected = load_unet(tmp_path / "unet.pth").state_dict(), load_unet(diffusers_folder).state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    lines = [str(warning.message) for warning in recwarn if str(tmp_path) in str(warning.message)]
    assert len(lines) == (line is not None) and all(re.search(line, text) for text in lines)


VARIANTS = [("bf16", torch.bfloat16), ("non_ema", torch.float32), ("fp32", torch.float32)]


@pytest.mark.parametrize("variant, dtype", VARIANTS)
def test_variants_are_found_where_there_is_nothing_else(diffusers_folder, tmp_path, recwarn, variant, dtype):
    folder = copied(diffusers_folder, tmp_path / "model")
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    state = {name: value.to(dtype) for name, value in load_file(path).items()}
    save_file(state, path.with_suffix(f".{variant}.safetensors"))
    assert Source(folder).file("unet") == path, "the usual file goes before every variant"
    path.unlink()
    expected = load_unet(diffusers_folder).state_dict()
    assert all(torch.allclose(value, expected[key], rtol=1e-2) for key, value in load_unet(folder).state_dict().items())
    assert [str(w.message) for w in recwarn if "averages are not there" in str(w.message)] != [] or variant != "non_ema"


def test_half_precision_is_chosen_where_it_is_asked_for(diffusers_folder, tmp_path):
    folder = copied(diffusers_folder, tmp_path / "model")
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    for variant in ("fp16", "bf16", "non_ema"):
        shutil.copy(path, path.with_suffix(f".{variant}.safetensors"))
    assert Source(folder, half=True).file("unet").name == "diffusion_pytorch_model.fp16.safetensors"
    assert Source(folder).file("unet") == path


def with_tokens(folder, rows, names):
    """A fine-tune whose vocabulary has that many rows more, of which the tokenizer names some."""
    path = folder / "text_encoder/model.safetensors"
    state = load_file(path)
    key = next(key for key in state if key.endswith("token_embedding.weight"))
    torch.manual_seed(1)
    state[key] = torch.cat([state[key], torch.randn(rows, state[key].shape[1])])
    save_file(state, path)
    if names:
        added = {name: 49408 + i for i, name in enumerate(names)}
        (folder / "tokenizer/added_tokens.json").write_text(json.dumps(added))
    return state[key]


def test_added_tokens_that_the_tokenizer_names_are_used(diffusers_folder, tmp_path):
    folder = copied(diffusers_folder, tmp_path / "model")
    rows = with_tokens(folder, 2, ["<my-cat>", "a+(b"])
    text = load_text(folder)
    assert text.config.added_tokens == ("<my-cat>", "a+(b") and torch.equal(text.token_embedding.weight, rows)
    assert text.tokens(["a <My-cat>, a+(b"])[0, :6].tolist() == [49406, 320, 49408, 267, 49409, 49407]
    plain = load_text(diffusers_folder)
    assert torch.equal(text.encode(["a cat"]), plain.encode(["a cat"]))
    with pytest.warns(UserWarning, match="left out 'a <my-cat>'"):
        text.tokens(["a " * 75 + " a <my-cat>"])


def test_rows_of_the_vocabulary_that_nothing_uses_are_named_and_dropped(diffusers_folder, tmp_path):
    folder = copied(diffusers_folder, tmp_path / "model")
    with_tokens(folder, 64, ["<my-cat>"])
    line = r"49,472 rows .* names 49,409 tokens \(<my-cat> added\): rows 49409 to 49471 are left out"
    with pytest.warns(UserWarning, match=line):
        text = load_text(folder)
    assert text.token_embedding.weight.shape[0] == 49409
    (folder / "tokenizer/added_tokens.json").write_text('{"<my-cat>": 49500}')
    with pytest.raises(UserError, match="added tokens with the ids from 49408 on, found \\[49500\\]"):
        load_text(folder)
    (folder / "tokenizer/added_tokens.json").write_text('{"<my-cat>": "first"}')
    with pytest.raises(UserError, match="added tokens with whole numbers as ids, found 'first'"):
        load_text(folder)


def test_float8_is_cast_with_a_line(diffusers_folder, tmp_path):
    state = load_file(diffusers_folder / "unet/diffusion_pytorch_model.safetensors")
    small = {name: value.to(torch.float8_e4m3fn) for name, value in state.items()}
    save_file(small, tmp_path / "unet.safetensors")
    shutil.copy(diffusers_folder / "unet/config.json", tmp_path)
    with pytest.warns(UserWarning, match="float8_e4m3fn") as lines:
        unet = load_unet(tmp_path / "unet.safetensors")
    assert len(lines) == 1 and unet.conv_in.weight.dtype == torch.float32
    assert torch.equal(unet.conv_in.weight, small["conv_in.weight"].float())


@pytest.mark.parametrize("dtype, message", [
    (torch.int64, "conv_in.weight: expected torch.float32, found torch.int64"),
    (torch.bool, "conv_in.weight: expected torch.float32, found torch.bool"),
    (torch.complex64, "conv_in.weight: expected torch.float32, found torch.complex64"),
    (torch.float8_e5m2, "conv_in.weight holds numbers that are not finite"),
    (torch.float8_e4m3fn, "conv_in.weight holds numbers that are not finite"),
], ids=str)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*float8")
def test_numbers_of_another_kind_are_called_so(diffusers_folder, tmp_path, dtype, message):
    """And those of 8 bits are looked through as others are: infinite in e5m2, NaN in e4m3fn, which has no infinity."""
    state = load_file(diffusers_folder / "unet/diffusion_pytorch_model.safetensors")
    bad = torch.full_like(state["conv_in.weight"], math.nan if dtype == torch.float8_e4m3fn else math.inf)
    bad = (bad if dtype.is_floating_point else bad.zero_()).to(dtype)
    save_file(state | {"conv_in.weight": bad}, tmp_path / "unet.safetensors")
    shutil.copy(diffusers_folder / "unet/config.json", tmp_path)
    with pytest.raises(UserError, match=message):
        load_unet(tmp_path / "unet.safetensors")


@pytest.mark.parametrize("name", ["unet.safetensors", "unet.pth", "unet.bin"])
def test_a_pointer_of_git_lfs_is_called_so(tmp_path, name):
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5646000000\n"
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"is a pointer of git-lfs, {len(text)} bytes, .*run git lfs pull"):
        load_unet(tmp_path / name)


def test_a_pointer_is_called_so_in_the_place_of_a_clip_or_a_text_too(tmp_path):
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5646000\n"
    for name, read in {"clip.mp4": Clip.load, "clip.gif": Clip.load, "captions.tsv": read_text, "prompts.txt": read_text}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=f"{name} is a pointer of git-lfs, {len(text)} bytes, .*run git lfs pull"):
            read(tmp_path / name)


@pytest.mark.parametrize("content, message", [
    (b"version https://git-lfs.github.com/spec/v1\nsize 1651\n", "config.json is a pointer of git-lfs, .*run git lfs pull"),
    (b"[1]", "config.json is damaged: expected settings by name, found list"),
    (b'{"name": "x", "frames": "16"}', "config.json: frames: expected int, found '16'"),
    (b'{"name": "x", "frames": 0}', "config.json: frames: expected a whole number from 1 to 1,048,576, found frames 0"),
    (b'{"name": "x", "fps": -8}', "config.json: fps: expected a whole number from 1 to 1,000, found fps -8"),
])  # fmt: skip
def test_settings_that_cannot_be_read_are_told_with_their_file(tmp_path, content, message):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_preset(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_settings_saved_by_another_editor_are_read(tmp_path, encoding):
    save_preset(tmp_path, presets.get("nano"))
    path = tmp_path / "config.json"
    path.write_bytes(path.read_text().encode(encoding))
    assert read_preset(tmp_path) == presets.get("nano")


@pytest.mark.parametrize("names, networks", [
    (["unet.down_blocks.0.attentions.0.proj_in.lora_A.weight", "unet.down_blocks.0.attentions.0.proj_in.lora_B.weight"],
     "the unet"),
    (["lora_unet_down_blocks_0_temp_attentions_0_proj_in.lora_down.weight",
      "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight"], "the unet and the text"),
    (["mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight"], "the unet"),
])  # fmt: skip
def test_adapters_are_called_so(tmp_path, names, networks, capsys):
    save_file({name: torch.zeros(4, 4) for name in names}, tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match=f"found adapters for {networks} \\({len(names)} tensors"):
        load_unet(tmp_path / "lora.safetensors")
    assert main(["weights", "inspect", str(tmp_path / "lora.safetensors")]) == 2
    assert "adapters" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["lora.safetensors", "adapter_model.safetensors", "pytorch_lora_weights.safetensors"])
def test_an_adapter_is_no_model(tmp_path, name, capsys):
    """Where a model is asked for, by its file or by its folder."""
    save_file({"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": torch.zeros(4, 4)}, tmp_path / name)
    for place in (tmp_path / name, *([] if name == "lora.safetensors" else [tmp_path])):
        assert main(["sample", "a red circle", "--model", str(place), "--out", str(tmp_path / "c.gif")]) == 2
        assert f"found the adapter {place}; name its model, and add it with --lora {place}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["scaled_fp8", "conv_in.scale_weight", "conv_in.weight_scale", "conv_in.weight.absmax",
                                  "mid_block.attentions.0.proj_in.SCB", "module.conv_in.qweight"])  # fmt: skip
def test_quantized_weights_are_called_so(diffusers_folder, tmp_path, name):
    state = load_file(diffusers_folder / "unet/diffusion_pytorch_model.safetensors")
    save_file(state | {name: torch.ones(1)}, tmp_path / "unet.safetensors")
    with pytest.raises(UserError, match=f"found quantized ones \\({bare(name)} says how\\); get the file in float16"):
        load_unet(tmp_path / "unet.safetensors")


def test_one_network_of_a_folder_or_file(diffusers_folder, modelscope_folder):
    """A network's own folder, and its file with the config.json beside it, are as good as the whole folder."""
    whole = load_unet(diffusers_folder).config
    for path in ("unet", "unet/diffusion_pytorch_model.safetensors"):
        assert load_unet(diffusers_folder / path).config == whole
    text = load_text(diffusers_folder / "text_encoder").config
    assert text == load_text(diffusers_folder).config
    assert load_autoencoder(modelscope_folder / "VQGAN_autoencoder.pth").config.channels == 8


def test_sizes_that_no_tensor_tells_are_not_guessed(diffusers_folder, tmp_path):
    """This UNet's norms have 8 groups; without its config.json it is refused, not run with 32."""
    shutil.copy(diffusers_folder / "unet/diffusion_pytorch_model.safetensors", tmp_path / "unet.safetensors")
    with pytest.raises(UserError, match="put its config.json beside it"):
        load_unet(tmp_path / "unet.safetensors")


class Exploit:
    """A pickle that makes a file when it is run."""

    def __init__(self, path, function=os.mkdir):
        self.path, self.function = path, function

    def __reduce__(self):
        return self.function, (str(self.path),)


def hostile(kind: str, path: Path, good: dict, mark: Path) -> Path:
    """Write a broken or hostile file of a UNet; `mark` is what an executed one would leave."""
    key = "conv_in.weight"
    saved = lambda state, name="bad.safetensors": (save_file(state, path / name), path / name)[1]
    pickled = lambda content: (torch.save(content, path / "bad.pth"), path / "bad.pth")[1]
    raw = lambda content, name="bad.pth": ((path / name).write_bytes(content), path / name)[1]
    whole = lambda: saved(good).read_bytes()
    if kind == "empty":
        return raw(b"", "bad.safetensors")
    if kind == "text":
        return raw(b"<html>not found</html>", "bad.safetensors")
    if kind == "cut header":
        return raw(whole()[:100], "bad.safetensors")
    if kind == "cut data":
        return raw(whole()[:-1000], "bad.safetensors")
    if kind == "huge header":
        return raw((1 << 62).to_bytes(8, "little") + b"{}", "bad.safetensors")
    if kind == "overlap":
        entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
        header = json.dumps({"a": entry, "b": entry}).encode()
        return raw(len(header).to_bytes(8, "little") + header + bytes(16), "bad.safetensors")
    if kind == "beyond the end":
        header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
        return raw(len(header).to_bytes(8, "little") + header, "bad.safetensors")
    if kind == "missing":
        return saved({name: value for name, value in good.items() if name != key})
    if kind == "extra":
        return saved(good | {"extra.weight": torch.zeros(1)})
    if kind == "wrong shape":
        return saved(good | {key: torch.zeros(16, 4, 5, 5)})
    if kind == "same size, other shape":
        return saved(good | {"conv_out.weight": good["conv_out.weight"].transpose(0, 1).contiguous()})
    if kind == "nan":
        return saved(good | {key: torch.full_like(good[key], float("nan"))})
    if kind == "inf in half":
        return saved(good | {key: torch.full_like(good[key], float("inf")).half()})
    if kind == "integers":
        return saved(good | {key: good[key].long()})
    if kind == "another network":
        return saved({"encoder.down_blocks.0.resnets.0.conv1.weight": torch.zeros(1)})
    if kind == "runs a function":
        return pickled(good | {"x": Exploit(mark)})
    if kind == "runs eval":
        return pickled(good | {"x": Exploit(f"__import__('os').mkdir({str(mark)!r})", eval)})
    if kind == "runs in a protocol 4 pickle":
        torch.save(good | {"x": Exploit(mark)}, path / "bad.pth", pickle_protocol=4)
        return path / "bad.pth"
    if kind == "plain pickle":
        return raw(pickle.dumps({"x": Exploit(mark)}))
    if kind == "plain pickle called bin":
        return raw(pickle.dumps({"x": Exploit(mark)}), "bad.bin")
    if kind == "no dictionary":
        return pickled([1, 2, 3])
    if kind == "no tensors":
        return pickled({"a": 1, "b": {"c": 2}})
    if kind == "cut zip":
        return raw(pickled(good).read_bytes()[:-2000])
    if kind == "flipped zip":
        content = bytearray(pickled(good).read_bytes())
        content[40:400] = bytes(360)
        return raw(bytes(content))
    if kind == "zip without pickle":
        with zipfile.ZipFile(path / "bad.pth", "w") as file:
            file.writestr("archive/readme.txt", "nothing")
        return path / "bad.pth"
    if kind == "bomb":
        with zipfile.ZipFile(path / "bad.pth", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("archive/data.pkl", bytes(1 << 26))
        return path / "bad.pth"
    if kind == "suffix":
        return raw(b"MZ", "bad.exe")
    if kind == "absent":
        return path / "bad.safetensors"
    name = {
        "index climbs": "../secret.safetensors", "index is absolute": "/etc/passwd",
        "index to nothing": "no.safetensors", "index without key": "part.safetensors", "index damaged": None,
    }[kind]  # fmt: skip
    saved({"other": torch.zeros(1)}, "part.safetensors")
    content = json.dumps({"weight_map": {key: name}}) if name else '{"weight_map": ['
    return raw(content.encode(), "bad.safetensors.index.json")


KINDS = (
    "empty", "text", "cut header", "cut data", "huge header", "overlap", "beyond the end", "missing", "extra",
    "wrong shape", "same size, other shape", "nan", "inf in half", "integers", "another network",
    "runs a function", "runs eval", "runs in a protocol 4 pickle", "plain pickle", "plain pickle called bin",
    "no dictionary", "no tensors", "cut zip", "flipped zip", "zip without pickle", "bomb", "suffix", "absent",
    "index climbs", "index is absolute", "index to nothing", "index without key", "index damaged",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_are_refused(diffusers_folder, tmp_path, kind):
    good = load_file(diffusers_folder / "unet/diffusion_pytorch_model.safetensors")
    place, mark = tmp_path / "place", tmp_path / "executed"
    place.mkdir()
    path = hostile(kind, place, good, mark)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        load_network("unet", path, torch.float32, "cpu", TINY.unet)
    message = str(caught.value)
    assert "\n" not in message and (str(place) in message or "wants to run" in message)
    assert not mark.exists() and sorted(tmp_path.rglob("*")) == before


def test_a_file_that_is_published_is_compared_with_its_checksum(modelscope_folder, tmp_path, monkeypatch):
    path, digest = modelscope_folder / "VQGAN_autoencoder.pth", hashlib.sha256()
    digest.update(path.read_bytes())
    size = path.stat().st_size
    monkeypatch.setitem(reading.KNOWN, path.name, {size: digest.hexdigest()[:8]})
    assert load_autoencoder(path)
    changed = tmp_path / path.name
    changed.write_bytes(path.read_bytes()[:-1] + b"?")
    shutil.copy(modelscope_folder / "configuration.json", tmp_path)
    with pytest.raises(UserError, match="sha256"):
        load_autoencoder(changed)


def test_a_small_model_outlives_its_file(diffusers_folder, tmp_path):
    """Training writes over the files of a model that a notebook may have open."""
    path = Path(shutil.copytree(diffusers_folder / "unet", tmp_path / "unet")) / "diffusion_pytorch_model.safetensors"
    unet = load_unet(path)
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    path.write_bytes(bytes(path.stat().st_size))
    assert all(torch.equal(before[key], value) for key, value in unet.state_dict().items())


def test_links_out_of_the_folder_are_refused_but_for_the_hubs_cache(diffusers_folder, tmp_path):
    def linked(folder: Path, target: Path) -> Path:
        copied(diffusers_folder, folder)
        path = folder / "unet/diffusion_pytorch_model.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
        path.symlink_to(target)
        return folder

    with pytest.raises(UserError, match="leads out of its folder"):
        load_unet(linked(tmp_path / "away", tmp_path / "elsewhere.safetensors"))
    hub = tmp_path / "models--owner--name"
    load_unet(linked(hub / "snapshots" / "abc", hub / "blobs" / "0123.safetensors"))
