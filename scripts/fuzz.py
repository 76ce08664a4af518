"""Damaged and hostile inputs for everything that reads a file or an argument line: make fuzz MINUTES=10

    python scripts/fuzz.py --minutes 10 --seed 7           new inputs of all readers, in turn
    python scripts/fuzz.py --only checkpoint --seed :1234  one input again, in this process, with its traceback

An input is a whole file, changed by a random generator whose seed is its number. It is read in a process of its own that may
take 4 GB, and ten seconds more than a reader allows a file. A finding is anything but a result or a UserError: another exception, more time or memory, a
process that dies, a file that appears where none should, or numbers other than those that were written, if the format has
a checksum. Findings are kept in runs/fuzz, each with the command that reads it again. Exit status 1 if there are any.
"""

import argparse
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from minit2v import presets
from minit2v.checkpoints.adapters import in_order, read_adapter, save_adapter
from minit2v.checkpoints.export import export
from minit2v.checkpoints.folder import read_preset, save_model
from minit2v.checkpoints.load import load_network
from minit2v.checkpoints.source import Source
from minit2v.cli import main as command_line
from minit2v.datasets.metadata import read_captions
from minit2v.datasets.msrvtt import Protocol, read_annotations
from minit2v.errors import UserError
from minit2v.evaluation.kept import keep, read_kept
from minit2v.files import data_dir
from minit2v.networks.lora import fresh
from minit2v.networks.unet import UNet
from minit2v.presets import AutoencoderConfig, ModelScopePreset, TextConfig, UNetConfig
from minit2v.recording.recording import Recording
from minit2v.recording.run import TrainingRun
from minit2v.systems import build
from minit2v.training.checkpoint import read_checkpoint
from minit2v.video import SLOWEST, Clip

ROOT = Path(__file__).parent.parent
SECONDS, BYTES = SLOWEST + 10, 4_000_000_000
HOSTILE = [None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1e308, float("nan"), "", "9", "../../etc/passwd", "\0", "a" * 5000, [], {},
           [0] * 100, [[[]]], {"a": {}}, -(10**12), 0.5, "nan", "../x", "$(touch hacked)"]  # fmt: skip
TINY = ModelScopePreset(
    "tiny", unet=UNetConfig(channels=(32,), attention=(True,), layers_per_level=1, head_dim=8, context_dim=32, norm_groups=8),
    autoencoder=AutoencoderConfig(channels=8, norm_groups=4), frames=2, height=16, width=16, steps=2,
    text=TextConfig(width=32, heads=2, layers=2, embed_dim=32, context_length=8),
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """Something that reads what strangers wrote."""

    make: Callable[[Path], Path]  # writes a whole input into a folder; returns the file that is changed
    read: Callable[[Path], object]  # reads it; returns what can be compared, or None
    sealed: bool = False  # the format has a checksum: whatever is read must be what was written


# --- changes of a file


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def double(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(data)) for _ in range(2))
    place = rng.randrange(len(data))
    return data[:place] + data[start:end][:10_000] + data[place:]


def remove(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice([1, 4, 100, 5000]) :]


def number(data: bytes, rng: random.Random) -> bytes:
    """A huge, negative or zero number over some bytes."""
    size, place = rng.choice([1, 2, 4, 8]), rng.randrange(len(data))
    value = rng.choice([0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1])
    return data[:place] + value.to_bytes(size, rng.choice(["little", "big"])) + data[place + size :]


def noise(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 16, 3000]))


def words(data: bytes, rng: random.Random) -> bytes:
    """A hostile value in the place of one of JSON, at any depth; of another text, somewhere in it."""
    value = rng.choice(HOSTILE)
    try:
        content = json.loads(data)
    except ValueError:
        place = rng.randrange(len(data))
        return data[:place] + json.dumps(value).encode() + data[place:]
    holder = content
    while isinstance(holder, (dict, list)) and holder:
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        if not isinstance(holder[key], (dict, list)) or not holder[key] or rng.random() < 0.3:
            holder[key] = value
            break
        holder = holder[key]
    return json.dumps(content).encode()


def inner(data: bytes, rng: random.Random) -> bytes:
    """One of the files in a zip changed, with checksums that fit."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return flip(data, rng)
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
        names = old.namelist()
        chosen = rng.choice(names)
        for name in names:
            content = old.read(name)
            if name == chosen and content:
                content = rng.choice([flip, cut, double, remove, number])(content, rng)
            new.writestr(name, content)
    return result.getvalue()


CHANGES = [flip, flip, cut, double, remove, number, number, noise, words, inner]
SEALED = {flip, cut, double, remove, number, noise}  # after these, what is read must be what was written


# --- readers


def model(folder: Path) -> Path:
    torch.manual_seed(0)
    save_model(folder / "model", presets.get("nano"), torch.float16, **build(presets.get("nano")))
    return folder / "model"


def released(layout: str) -> Callable[[Path], Path]:
    """A tiny model in another layout."""

    def make(folder: Path) -> Path:
        torch.manual_seed(0)
        export(folder / "model", layout, TINY, **build(TINY))
        return folder / "model"

    return make


def of(make: Callable[[Path], Path], name: str) -> Callable[[Path], Path]:
    return lambda folder: make(folder) / name


def numbers(module: torch.nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for value in module.state_dict().values())


def unet() -> UNet:
    torch.manual_seed(0)
    return UNet(TINY.unet)


def adapter(folder: Path) -> Path:
    network = unet()
    return save_adapter(folder, fresh(network, 2), network, "tiny")


def listed_adapter(folder: Path) -> Path:
    """One without names, as cloneofsimo's."""
    network = unet()
    pairs = [(layer.weight.new_ones(len(layer.weight), 1, *[1] * (layer.weight.ndim - 2)), layer.weight.detach()[:1].clone())
             for layer in map(network.get_submodule, in_order(network))]  # fmt: skip
    torch.save([matrix for pair in pairs for matrix in pair], folder / "unet.pt")
    return folder / "unet.pt"


def checkpoint(folder: Path) -> Path:
    tensors = {"weight": torch.randn(40, 40, generator=torch.Generator().manual_seed(0))}
    state = {name: dict(tensors) for name in ("task", "averaged", "optimizer")}
    torch.save(state | {"step": 7, "elapsed": 1.5, "settings": {"lr": 0.1}}, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


def kept(folder: Path) -> Path:
    keep(folder / "kept.npz", np.arange(999.0))
    return folder / "kept.npz"


def read_array(path: Path) -> bytes | None:
    found = read_kept(path, np.floating, (999,))
    return None if found is None else found.tobytes()


def clip(suffix: str) -> Callable[[Path], Path]:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), np.uint8)
    return lambda folder: Clip(pixels, 8).save(folder / f"clip{suffix}")


def still(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from PIL import Image

        Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(folder / f"still{suffix}")
        return folder / f"still{suffix}"

    return make


def shipped(name: str) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copy(data_dir() / name, folder))


def text(name: str, content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return make


def annotations(folder: Path) -> Path:
    (folder / "videos").mkdir()
    videos = [{"video_id": f"video{i}", "split": "test", "start time": 1.0, "end time": 5.0} for i in range(9)]
    sentences = [{"video_id": f"video{i}", "caption": "a man sings", "sen_id": i} for i in range(9)]
    path = folder / Protocol().annotations
    path.write_text(json.dumps({"videos": videos, "sentences": sentences}))
    return path


def arguments(folder: Path) -> Path:
    """An argument line that works, a word a line."""
    model(folder)
    line = ["sample", "a red circle moves left", "--model", str(folder / "model"), "--out", str(folder / "clip.gif"), "--steps",
            "1", "--frames", "1", "--seed", "3", "--device", "cpu"]  # fmt: skip
    (folder / "line.txt").write_text("\n".join(line))
    return folder / "line.txt"


def run_line(path: Path) -> None:
    """A line may succeed or be refused with status 2; nothing else."""
    line = path.read_bytes().decode("utf-8", "replace").replace("\0", "").split("\n")
    os.chdir(path.parent)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
        try:
            status = command_line(line)
        except SystemExit as stop:  # argparse
            status = stop.code
    if status not in (None, 0, 2):
        raise AssertionError(f"status {status}: {said.getvalue()[-300:]}")


READERS = {
    "config": Reader(of(model, "config.json"), lambda path: read_preset(path.parent)),
    "weights": Reader(of(model, "text.safetensors"), lambda path: numbers(load_network("text", path.parent)), sealed=True),
    "unet": Reader(of(model, "unet.safetensors"), lambda path: numbers(load_network("unet", path.parent)), sealed=True),
    "diffusers": Reader(of(released("diffusers"), "unet/config.json"), lambda path: Source(path.parent.parent).preset),
    "diffusers text": Reader(of(released("diffusers"), "text_encoder/config.json"),
                             lambda path: Source(path.parent.parent).preset),
    "scheduler": Reader(of(released("diffusers"), "scheduler/scheduler_config.json"),
                        lambda path: Source(path.parent.parent).preset),
    "modelscope": Reader(of(released("modelscope"), "configuration.json"), lambda path: Source(path.parent).preset),
    "pickle": Reader(of(released("modelscope"), "VQGAN_autoencoder.pth"),
                     lambda path: numbers(load_network("autoencoder", path.parent)) and None),
    "adapter": Reader(of(adapter, "adapter_model.safetensors"), lambda path: numbers(read_adapter(path.parent, unet())), sealed=True),
    "adapter config": Reader(of(adapter, "adapter_config.json"), lambda path: len(read_adapter(path.parent, unet()).names)),
    "adapter list": Reader(listed_adapter, lambda path: len(read_adapter(path, unet()).names)),
    "checkpoint": Reader(checkpoint, lambda path: repr(read_checkpoint(path)), sealed=True),
    "kept": Reader(kept, read_array, sealed=False),
    "recording": Reader(shipped("recordings/left.npz"), lambda path: len(Recording.load(path).steps)),
    "run": Reader(shipped("runs/nano-vqgan-late.npz"), lambda path: len(TrainingRun.load(path).steps)),
    **{f"clip{suffix}": Reader(clip(suffix), lambda path: Clip.load(path)) for suffix in (".mp4", ".gif", ".webp")},
    **{f"still{suffix}": Reader(still(suffix), lambda path: Clip.load(path)) for suffix in (".png", ".jpg")},
    "captions.jsonl": Reader(text("metadata.jsonl", '{"file_name": "a.mp4", "text": "a dog"}\n' * 5), read_captions),
    "captions.csv": Reader(text("metadata.csv", "file_name,text\n" + 'a.mp4,"a dog, running"\n' * 5), read_captions),
    "captions.tsv": Reader(text("captions.tsv", "a.mp4\ta dog\n" * 5), read_captions),
    "msrvtt": Reader(annotations, lambda path: read_annotations(path.parent, Protocol())),
    "arguments": Reader(arguments, run_line),
}  # fmt: skip


# --- one input


def changed(reader: Reader, whole: bytes, number: int) -> tuple[bytes, bool]:
    """(the input of that number, whether it must be refused or read as it was written)."""
    rng = random.Random(number)
    change = rng.choice(CHANGES)
    return change(whole, rng), reader.sealed and change in SEALED


def tried(reader: Reader, path: Path, expected: object, sealed: bool) -> None:
    """Reads a changed input. Raises whatever is a finding."""
    before = {each for each in path.parent.rglob("*")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = reader.read(path)
        except UserError as error:
            if "\n" in str(error):
                raise AssertionError(f"an error of several lines: {error}") from None
            return
        finally:
            planted = {each.name for each in path.parent.rglob("*")} - {each.name for each in before}
            if "hacked" in planted:
                raise AssertionError("a command of the input was run")
    if sealed and found != expected:
        raise AssertionError("other numbers were read than were written, without a word")


def in_a_process(call: Callable[[], None]) -> str:
    """"" or what went wrong: an exception, a signal, too much time or memory."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            signal.alarm(SECONDS)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
            call()
            said = ""
        except MemoryError:
            said = f"more than {BYTES:,} bytes"
        except BaseException:
            said = traceback.format_exc()
        os.write(writing, said.encode()[-4000:])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"more than {SECONDS} s" if number == signal.SIGALRM else f"the process died of {signal.Signals(number).name}"
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", default="", help="of the inputs, a new one each time if left out; :NUMBER is one input again")
    parser.add_argument("--only", nargs="+", choices=READERS, default=list(READERS), metavar="READER", help=", ".join(READERS))
    parser.add_argument("--most", type=int, default=10**9, help="inputs, all readers together")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if ":" in asked.seed:
        return again(asked.only, int(asked.seed.partition(":")[2]))
    seed = int(asked.seed) if asked.seed else random.SystemRandom().randrange(10**6)
    return hunt(asked.only, seed, time.monotonic() + 60 * asked.minutes, asked.most)


def prepared(name: str, folder: Path) -> tuple[Path, bytes, object]:
    """(file, its bytes, what is read of it) of a whole input, read once so that nothing of it is a finding."""
    path = READERS[name].make(folder)
    return path, path.read_bytes(), READERS[name].read(path)


def hunt(names: list[str], seed: int, end: float, most: int) -> int:
    counts, findings = Counter(), 0
    with tempfile.TemporaryDirectory() as place:
        whole = {}
        for name in names:
            folder = Path(place) / name
            folder.mkdir()
            whole[name] = prepared(name, folder)
        number = seed * 10**7
        while time.monotonic() < end and sum(counts.values()) < most:
            name = names[sum(counts.values()) % len(names)]
            path, data, expected = whole[name]
            content, sealed = changed(READERS[name], data, number)
            path.write_bytes(content)
            said = in_a_process(lambda: tried(READERS[name], path, expected, sealed))
            counts[name] += 1
            if said:
                findings += 1
                report(name, number, path, said)
            number += 1
    print(f"seed {seed}: {sum(counts.values()):,} inputs of {len(counts)} readers, {findings} findings")
    return int(findings > 0)


def report(name: str, number: int, path: Path, said: str) -> None:
    folder = ROOT / "runs" / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, folder / f"{name}-{number}{path.suffix}")
    last = said.strip().splitlines()[-1][:200]
    print(f"{name}: {last}\n    python scripts/fuzz.py --only {name!r} --seed :{number}", flush=True)


def again(names: list[str], number: int) -> int:
    """One input in this process."""
    for name in names:
        with tempfile.TemporaryDirectory() as place:
            path, data, expected = prepared(name, Path(place))
            content, sealed = changed(READERS[name], data, number)
            path.write_bytes(content)
            tried(READERS[name], path, expected, sealed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
