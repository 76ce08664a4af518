"""The hub without a network: its cache as its client lays it out, and a client that takes what is sent."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import huggingface_hub
import pytest
import torch
import yaml
from safetensors.torch import load_file

import minit2v
from minit2v.checkpoints.adapters import save_adapter
from minit2v.checkpoints.card import card
from minit2v.checkpoints.folder import read_preset, save_module, save_tensors
from minit2v.checkpoints.hub import push
from minit2v.cli import main
from minit2v.errors import UserError
from minit2v.networks import lora
from minit2v.networks.unet import UNet
from minit2v.systems import SYSTEMS, System, TextToVideo

MAIN, OLD = "0" * 39 + "1", "0" * 39 + "2"  # commits


@pytest.fixture
def other_nano(untrained_nano, tmp_path):
    """The same sizes, another UNet."""
    folder = Path(shutil.copytree(untrained_nano, tmp_path / "other"))
    torch.manual_seed(1)
    save_module(UNet(read_preset(folder).unet), folder / "unet.safetensors")
    return folder


@pytest.fixture
def adapter(untrained_nano, tmp_path):
    unet = minit2v.load(untrained_nano, device="cpu").unet
    torch.manual_seed(0)
    found = lora.fresh(unet, 2)
    for _, part in found.items():
        torch.nn.init.normal_(part.B)
    return save_adapter(tmp_path / "adapter", found, unet, "owner/nano")


def cached(cache: Path, hub_id: str, commits: dict[str, Path], refs: dict[str, str]) -> None:
    """The cache of the hub's client: blobs by digest, snapshots of links to them, refs of branches and tags."""
    place = cache / f"models--{hub_id.replace('/', '--')}"
    for name in ("blobs", "refs"):
        (place / name).mkdir(parents=True, exist_ok=True)
    for commit, folder in commits.items():
        snapshot = place / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for path in folder.iterdir():
            blob = place / "blobs" / f"{commit}-{path.name}"
            shutil.copy(path, blob)
            os.symlink(os.path.relpath(blob, snapshot), snapshot / path.name)
    for ref, commit in refs.items():
        (place / "refs" / ref).write_text(commit)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    return tmp_path / "cache"


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    return all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


def test_our_layout_is_loaded_from_the_cache_at_every_revision(offline, untrained_nano, other_nano, capsys):
    cached(offline, "owner/nano", {MAIN: untrained_nano, OLD: other_nano}, {"main": MAIN, "v1": OLD})
    new, old = (minit2v.load(folder, device="cpu") for folder in (untrained_nano, other_nano))
    load = lambda **options: minit2v.load("owner/nano", device="cpu", **options)
    assert load().preset == new.preset and not same(new.unet, old.unet)
    for revision, expected in ((None, new), ("main", new), (MAIN, new), ("v1", old), (OLD, old)):
        assert same(load(revision=revision).unet, expected.unet)
    with pytest.raises(UserError, match="could not get a model of that name at 'v2' from the Hugging Face hub"):
        load(revision="v2")
    convert = ["weights", "convert", "owner/nano", "copy", "--to", "minit2v"]
    assert main([*convert, "--revision", "v1"]) == 0
    assert load_file("copy/unet.safetensors").keys() == old.unet.state_dict().keys()
    assert same(minit2v.load("copy", device="cpu").unet, old.unet)


def test_an_adapter_comes_from_the_hub_too(offline, untrained_nano, adapter):
    cached(offline, "owner/ring", {MAIN: adapter}, {"main": MAIN})
    here, there = (minit2v.load(untrained_nano, device="cpu", lora=place).unet for place in (adapter, "owner/ring"))
    assert same(here, there) and not same(here, minit2v.load(untrained_nano, device="cpu").unet)


def test_only_what_is_read_is_asked_for(offline, untrained_nano, monkeypatch):
    """Of the revision that is named; of a system of more networks all of them."""
    files = [path.name for path in untrained_nano.iterdir()] + ["README.md", "unet.bin", "second.safetensors"]
    asked = {}

    def model_info(self, hub_id, revision=None, timeout=None):
        asked["info"] = hub_id, revision
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in files])

    def snapshot_download(hub_id, revision=None, allow_patterns=None, local_files_only=False):
        asked["download"] = hub_id, revision, set(allow_patterns)
        return str(untrained_nano)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    minit2v.load("owner/nano", device="cpu", revision="v1")
    read = {"config.json", "unet.safetensors", "autoencoder.safetensors", "text.safetensors"}
    assert asked == {"info": ("owner/nano", "v1"), "download": ("owner/nano", "v1", read)}
    row = SYSTEMS["modelscope"]
    larger = System({**row.networks, "second": UNet}, row.pipeline, {}, {})
    monkeypatch.setitem(SYSTEMS, "larger", larger)
    minit2v.load("owner/nano", device="cpu")
    assert asked["download"][2] == read | {"second.safetensors"}


@pytest.fixture
def hub(monkeypatch):
    """A client that keeps what it is given; its calls must have the real one's arguments."""
    fake = create_autospec(huggingface_hub.HfApi, instance=True)

    def commit(hub_id, operations, **_):
        read = lambda source: source if isinstance(source, bytes) else Path(source).read_bytes()
        fake.sent = {operation.path_in_repo: read(operation.path_or_fileobj) for operation in operations}
        return SimpleNamespace(commit_url="https://hub.example/owner/name/commit/1")

    fake.create_commit.side_effect = commit
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    return fake


def front_matter(text: bytes | str) -> tuple[dict, str]:
    text = text.decode() if isinstance(text, bytes) else text
    _, matter, body = text.split("---\n", 2)
    return yaml.safe_load(matter), body


def test_a_model_is_pushed_with_its_card_and_nothing_else(hub, untrained_nano, tmp_path, capsys):
    folder = Path(shutil.copytree(untrained_nano, tmp_path / "run"))
    (folder / "unet").mkdir()
    (folder / "unet/checkpoint.pt").write_bytes(b"a pickle")
    (folder / "notes.txt").write_text("private")
    args = ["push", str(folder), "owner/name", "--license", "cc-by-4.0", "--dataset", "owner/videos", "--private"]
    assert main(args) == 0 and "https://hub.example" in capsys.readouterr().out
    assert hub.create_repo.call_args.args == ("owner/name",) and hub.create_repo.call_args.kwargs["private"] is True
    found = hub.sent
    text = found.pop("README.md")
    assert found == {path.name: path.read_bytes() for path in untrained_nano.iterdir()}
    said, body = front_matter(text)
    assert said == {"license": "cc-by-4.0", "library_name": "minit2v", "pipeline_tag": "text-to-video",
                    "datasets": ["owner/videos"]}  # fmt: skip
    assert "minit2v sample" in body and "--model owner/name" in body and "16 frames of 32 x 32 pixels" in body
    assert not (folder / "README.md").exists()


def test_an_adapter_is_pushed_with_its_base(hub, adapter):
    (adapter / "unet").mkdir()
    push(adapter, "owner/ring", license="cc0-1.0")
    found = hub.sent
    said, body = front_matter(found.pop("README.md"))
    assert found.keys() == {"adapter_config.json", "adapter_model.safetensors"}
    assert said["base_model"] == "owner/nano" and "--lora owner/ring" in body


def test_what_a_card_says_already_stays(untrained_nano, tmp_path):
    folder = Path(shutil.copytree(untrained_nano, tmp_path / "run"))
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [mine]\npipeline_tag: video-to-video\n---\n# Title\n\nText.\n")
    said, body = front_matter(card(folder, "owner/name", datasets=("owner/videos",)))
    assert said == {"license": "mit", "tags": ["mine"], "pipeline_tag": "video-to-video", "library_name": "minit2v",
                    "datasets": ["owner/videos"]}  # fmt: skip
    assert body.strip() == "# Title\n\nText."
    (folder / "README.md").write_text("# Title alone\n")
    said, body = front_matter(card(folder, "owner/name", "mit"))
    assert said["license"] == "mit" and body.strip() == "# Title alone"
    (folder / "README.md").write_text("---\nlicense: [mit\n---\n")
    with pytest.raises(UserError, match="README.md: expected a front matter of YAML"):
        card(folder, "owner/name")


def test_what_cannot_be_pushed_is_told_before_anything_is_sent(hub, untrained_nano, modelscope_folder, tmp_path):
    damaged = Path(shutil.copytree(untrained_nano, tmp_path / "damaged"))
    data = bytearray((damaged / "unet.safetensors").read_bytes())
    data[-1] ^= 1
    (damaged / "unet.safetensors").write_bytes(data)
    for folder, name, license, message in (
        (untrained_nano, "owner/name", None, "expected a licence, found none"),
        (untrained_nano, "name", "mit", "push: expected a name of the hub like owner/name, found 'name'"),
        (modelscope_folder, "owner/name", "mit", "push: expected safetensors, found .*, a pickle; .*weights convert"),
        (damaged, "owner/name", "mit", "unet.safetensors is damaged"),
        (tmp_path, "owner/name", "mit", "expected a model's folder"),
    ):
        with pytest.raises(UserError, match=message):
            push(folder, name, license=license)
    assert not hub.method_calls
    hub.create_commit.side_effect = OSError("401 Unauthorized")
    with pytest.raises(UserError, match="the Hugging Face hub did not take owner/name .401 Unauthorized.; .*hf auth login"):
        push(untrained_nano, "owner/name", license="mit")


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("name, change, message", [
    ("adapter_model.safetensors", lambda data: b"", "damaged or no file of weights"),
    ("adapter_model.safetensors", lambda data: data[:5000], "damaged or no file of weights"),
    ("adapter_model.safetensors", lambda data: b"password=hunter2", "damaged or no file of weights"),
    ("adapter_model.safetensors", flipped, "is damaged: its numbers are not those that were written"),
    ("adapter_config.json", lambda data: b"password=hunter2", "adapter_config.json is damaged"),
    ("adapter_config.json", lambda data: data.replace(b'"r": 2', b'"r": 4'), "expected matrices of rank 4.* found 2"),
    ("adapter_config.json", lambda data: data.replace(b"LORA", b"LOHA"), "peft_type: expected 'LORA'"),
])  # fmt: skip
def test_an_adapter_is_read_before_it_is_sent(hub, adapter, name, change, message):
    (adapter / name).write_bytes(change((adapter / name).read_bytes()))
    with pytest.raises(UserError, match=message):
        push(adapter, "owner/ring", license="mit")
    assert not hub.method_calls


@pytest.mark.parametrize("tensors, message", [
    ({"password": torch.zeros(2)}, "expected the matrices of an adapter"), ({}, "found none"),
    ({"conv_in.lora_A.weight": torch.zeros(2, 4, 3, 3), "conv_in.lora_B.weight": torch.zeros(8, 3, 1, 1)}, "go together"),
    ({"conv_in.lora_A.weight": torch.full((2, 4), torch.nan), "conv_in.lora_B.weight": torch.zeros(8, 2)}, "no finite numbers"),
])  # fmt: skip
def test_weights_that_no_network_could_add_are_not_sent(hub, adapter, tensors, message):
    save_tensors(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(UserError, match=message):
        push(adapter, "owner/ring", license="mit")
    assert not hub.method_calls


def test_files_that_this_library_does_not_choose_are_read_too(hub, diffusers_folder, tmp_path):
    """Those of half precision beside whole ones, and what other programs read."""
    for name in ("unet/diffusion_pytorch_model.fp16.safetensors", "tokenizer/special_tokens_map.json"):
        folder = Path(shutil.copytree(diffusers_folder, tmp_path / Path(name).name))
        (folder / name).write_text("password=hunter2")
        with pytest.raises(UserError, match=f"{name} is damaged"):
            push(folder, "owner/name", license="mit")
    assert not hub.method_calls


@pytest.mark.parametrize("name", ["mini-fast", "nuwa"])
def test_a_model_that_shares_files_is_written_whole_first(hub, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"found {name}, which shares some with mini; write it whole with minit2v weights "
                                        f"convert {name} DST --to minit2v, then push DST"):  # fmt: skip
        push(name, "owner/name", license="mit")
    assert main(["weights", "convert", name, "DST", "--to", "minit2v"]) == 0
    assert push("DST", "owner/name", license="mit") and len(hub.sent) == 5


def test_a_card_that_is_no_file_is_not_passed_over(hub, adapter):
    (adapter / "README.md").mkdir()
    with pytest.raises(UserError, match="README.md: expected a text, found no file"):
        push(adapter, "owner/ring", license="mit")
    (adapter / "README.md").rmdir()
    os.mkfifo(adapter / "README.md")
    with pytest.raises(UserError, match="README.md: expected a text, found no file"):
        push(adapter, "owner/ring", license="mit")
    assert not hub.method_calls


def test_a_model_of_diffusers_layout_is_pushed_so_that_others_open_it(hub, diffusers_folder):
    push(diffusers_folder, "owner/name", license="mit")
    found = hub.sent
    there = {path.relative_to(diffusers_folder).as_posix() for path in diffusers_folder.rglob("*") if path.is_file()}
    assert found.keys() == there | {"README.md"}


def test_a_pipeline_saves_loads_and_publishes_itself(hub, untrained_nano, tmp_path):
    pipe = TextToVideo.from_pretrained(str(untrained_nano), device="cpu")
    assert pipe.save_pretrained(tmp_path / "mine", license="mit") == tmp_path / "mine"
    again = TextToVideo.from_pretrained(tmp_path / "mine", device="cpu")
    assert again.preset == pipe.preset and all(same(part, again.networks[name]) for name, part in pipe.networks.items())
    assert front_matter((tmp_path / "mine/README.md").read_text())[0]["license"] == "mit"
    assert pipe.push_to_hub("owner/name", license="mit").startswith("https://hub.example")
    found = hub.sent
    assert json.loads(found["config.json"])["name"] == "nano"
    assert found.keys() == {"config.json", "README.md", *(f"{name}.safetensors" for name in pipe.names)}
