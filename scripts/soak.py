"""What a long life brings: kills, many samples, company and a full disk: make soak, or make soak ONLY="kills disk"

    kills     a process that trains a small model, part after part, is killed again and again, while it draws, encodes,
              trains and writes; it ends to the bit as a process that nobody killed
    samples   many clips in one process, written, read again and recorded: its memory stays
    together  processes that write one file, train in one folder and read one model at the same time
    disk      a disk with room for a part of the output: one line, nothing half-written, and with more room it goes on

Each part prints a figure and stops after `--minutes`. Exit status 1 if anything is not as it should be.
"""

import argparse
import contextlib
import ctypes
import mmap
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch

import minit2v
from minit2v import presets
from minit2v.checkpoints.folder import save_model
from minit2v.cli import main as command_line
from minit2v.datasets.moving_things import MovingThings
from minit2v.errors import UserError
from minit2v.memory.measured import peak
from minit2v.recording.recorder import recorded
from minit2v.recording.recording import Recording
from minit2v.systems import build
from minit2v.systems.pipeline import TextToVideo
from minit2v.training import trainer
from minit2v.training.run import run
from minit2v.training.unet import UNetTask
from minit2v.video import Clip

TRAINING = {
    "train_steps": 8, "batch": 8, "clips": 64, "images": 32, "tests": 8, "bfloat16": False, "save_every": 0.0,
    "sample_every": 1e9,
}  # fmt: skip
FILES = ("autoencoder.safetensors", "text.safetensors", "unet.safetensors", "config.json", "recipe.json",
         "unet/cache.safetensors")  # fmt: skip
PHASES = ("starting", "drawing", "encoding", "training", "writing")
GROWTH = 60_000_000  # bytes that a process may grow by after its first tenth of the samples
SHORT = ["--set", "train_steps=2", "--set", "batch=4"]
PROMPT = "a large red circle moves left slowly"
TASKS = ("autoencoder", "text", "unet")


class Wrong(Exception):
    """Something is not as it should be."""


# --- kills


class Watched:
    """A child process that trains, and says in one byte of shared memory what it does at the moment."""

    def __init__(self, out: Path):
        self.now, self.out = mmap.mmap(-1, 1), out
        self.child = os.fork()
        if not self.child:
            os._exit(self._train(out))

    def _train(self, out: Path) -> int:
        for owner, name, phase in (
            (MovingThings, "batch", "drawing"), (TextToVideo, "encode", "encoding"), (trainer, "backward", "training"),
            (torch, "save", "writing"), (safetensors.torch, "save_file", "writing"), (os, "replace", "writing"),
        ):  # fmt: skip
            setattr(owner, name, self._seen(getattr(owner, name), phase))
        UNetTask.picture = lambda task: None  # takes longer than all steps
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            try:
                run("all", "nano", out, resume=True, settings=TRAINING)
                return 0
            except BaseException:
                (out.parent / "failed.txt").write_text(traceback.format_exc())
                return 1

    def _seen(self, function: Callable, phase: str) -> Callable:
        def call(*arguments, **options):
            before, self.now[0] = self.now[0], PHASES.index(phase)
            try:
                return function(*arguments, **options)
            finally:
                self.now[0] = before

        return call

    def ended(self) -> bool:
        """Whether it has come to its end; raises Wrong if that was a failure."""
        if self.child:
            pid, status = os.waitpid(self.child, os.WNOHANG)
            if not pid:
                return False
            self.child = 0
            if status:
                raise Wrong(f"a resumed training failed with status {status}")
        return True

    def kill_in(self, phase: str, visits: int, delay: float, patience: float) -> str | None:
        """Kill it `delay` seconds after it has come to a phase so many times, or after `patience` seconds; returns the
        phase that it was in, None if it ended before."""
        wanted, inside, end = PHASES.index(phase), False, time.monotonic() + patience
        while visits and time.monotonic() < end and not self.ended():
            if (now := self.now[0] == wanted) and not inside:
                visits -= 1
            inside = now
            time.sleep(0.0002)
        time.sleep(delay)
        if self.ended():
            return None
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)
        for unfinished in self.out.rglob(".*-*"):
            os.utime(unfinished, (0, 0))  # as if it had been a while ago
        return PHASES[self.now[0]]


def kills(asked: argparse.Namespace, folder: Path) -> str:
    import accelerate  # noqa: F401
    import open_clip  # noqa: F401 - once here, not for ten seconds in every child

    rng, end, found, rounds = random.Random(asked.seed), time.monotonic() + 60 * asked.minutes, Counter(), 0
    whole = folder / "whole" / "run"
    whole.parent.mkdir()
    alone = Watched(whole)
    while not alone.ended():
        time.sleep(0.05)
    while found.total() < asked.kills and time.monotonic() < end:
        out = folder / f"killed-{rounds}" / "run"
        out.parent.mkdir()
        ended = False
        while not ended:
            child = Watched(out)
            if found.total() >= asked.kills or time.monotonic() > end:
                while not child.ended():
                    time.sleep(0.05)
                break
            delay = rng.choice([0, 0.001, 0.01, 0.1]) * rng.random()
            where = child.kill_in(rng.choice(PHASES), rng.randint(1, 3), delay, patience=20)
            ended = where is None
            found.update([] if ended else [where])
        compare(whole, out)
        shutil.rmtree(out.parent)
        rounds += 1
    where = ", ".join(f"{found[phase]} {phase}" for phase in PHASES)
    return f"{found.total()} kills ({where}) of {rounds} trainings, which ended to the bit as one that nobody killed"


def compare(whole: Path, other: Path) -> None:
    """Raises Wrong unless two runs hold the same networks, states of their trainings and files."""
    for name in FILES:
        if (whole / name).read_bytes() != (other / name).read_bytes():
            raise Wrong(f"{name} is not that of the training which nobody killed")
    for part in TASKS:
        states = [torch.load(out / part / "checkpoint.pt", weights_only=True) for out in (whole, other)]
        for state in states:
            state.pop("elapsed")  # of the clock
        if not same(*states):
            raise Wrong(f"the checkpoint of {part} is not that of the training which nobody killed")
    names = [{path.relative_to(out).as_posix() for path in out.rglob("*")} for out in (whole, other)]
    if names[0] != names[1]:
        raise Wrong(f"files that should not be there, or are missing: {sorted(names[0] ^ names[1])}")


def same(one: object, other: object) -> bool:
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


# --- samples


def samples(asked: argparse.Namespace, folder: Path) -> str:
    pipe, end, done, sizes = minit2v.load(small(folder)), time.monotonic() + 60 * asked.minutes, 0, []
    while done < asked.samples and time.monotonic() < end:
        suffix = (".mp4", ".gif", ".webp")[done % 3]
        frames = 4 + done % 13  # each length has its own shapes, of which nothing may pile up
        clip = pipe(PROMPT, seed=done, steps=1 + done % 2, frames=frames, guidance=1.0 + done % 2)
        if Clip.load(clip.save(folder / f"clip{suffix}")).pixels.shape != clip.pixels.shape:
            raise Wrong(f"clip number {done} was read as another than was written, {suffix}")
        if done % 25 == 0:
            Recording.load(recorded(pipe, PROMPT, seed=done, steps=2, frames=frames).save(folder / "recording.npz"))
        done += 1
        sizes.append(resident())
    warm = max(sizes[: max(1, len(sizes) // 10)])
    grown = max(sizes[-max(1, len(sizes) // 10) :]) - warm
    if grown > GROWTH:
        raise Wrong(f"after {done} samples the process is {grown / 1e6:.0f} MB larger than after a tenth of them")
    sizes = f"{warm / 1e6:.0f} MB after a tenth, {grown / 1e6:+.0f} MB at the end, peak {peak() / 1e6:.0f} MB"
    return f"{done} samples in one process: {sizes}"


def resident() -> int:
    """Bytes of this process in memory, after what is free was given back."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def small(folder: Path) -> Path:
    torch.manual_seed(0)
    save_model(folder / "model", presets.get("nano"), **build(presets.get("nano")))
    return folder / "model"


# --- together


def together(asked: argparse.Namespace, folder: Path) -> str:
    model = small(folder)
    sample = ["sample", PROMPT, "--model", str(model), "--steps", "2", "--seed", "5", "--out"]
    alone = folder / "alone.webp"
    expect_success(started(*sample, str(alone)))
    many = [started(*sample, str(folder / "one.webp")) for _ in range(asked.processes)]
    for process in many:
        expect_success(process)
    if (folder / "one.webp").read_bytes() != alone.read_bytes():
        raise Wrong("of several processes that wrote one file, none wrote it as one alone does")
    train = ["train", "autoencoder", "--preset", "nano", "--out", str(folder / "run"), *SHORT, "--set", "train_steps=40"]
    many = [started(*train) for _ in range(asked.processes)]
    refused = sum(refusal(process, "trains there|already holds a run") for process in many)
    if refused != asked.processes - 1:
        raise Wrong(f"of {asked.processes} processes that train in one folder, {refused} were refused")
    leftovers([path for path in folder.iterdir() if path.name.startswith(".")])
    return (f"{asked.processes} processes at once: one file, whole and as alone; one folder, in which one trained and "
            f"{refused} were told so")  # fmt: skip


def started(*arguments: str) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command, pipes = [sys.executable, "-m", "minit2v", *arguments], {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, **pipes)


def expect_success(process: subprocess.Popen) -> None:
    _, said = process.communicate(timeout=600)
    if process.returncode:
        raise Wrong(f"status {process.returncode}: {said[-500:]}")


def refusal(process: subprocess.Popen, words: str) -> bool:
    """Whether a process was refused, in a line with one of these words; raises Wrong for any other failure."""
    _, said = process.communicate(timeout=600)
    if process.returncode == 2 and any(word in said for word in words.split("|")):
        return True
    if process.returncode:
        raise Wrong(f"status {process.returncode}: {said[-500:]}")
    return False


def leftovers(paths: list[Path]) -> None:
    if paths:
        raise Wrong(f"left behind: {', '.join(path.name for path in paths)}")


# --- disk


@contextlib.contextmanager
def small_disk(folder: Path, size: int):
    """(a folder that holds so many bytes, True), or where a file system cannot be mounted (a folder, False)."""
    place = folder / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
    mounted = bool(shutil.which("mount")) and not subprocess.run(mount, capture_output=True).returncode
    try:
        yield place, mounted
    finally:
        if mounted:
            subprocess.run(["umount", place], check=True)


def disk(asked: argparse.Namespace, folder: Path) -> str:
    model, rng, end = small(folder), random.Random(asked.seed), time.monotonic() + 60 * asked.minutes
    sample = ["sample", PROMPT, "--model", str(model), "--steps", "2"]
    works = {
        "sample .mp4": lambda place: [*sample, "--out", f"{place}/clip.mp4"],
        "sample .gif": lambda place: [*sample, "--out", f"{place}/clip.gif"],
        "record": lambda place: [*sample, "--out", f"{place}/clip.webp", "--record", f"{place}/record"],
        "convert": lambda place: ["weights", "convert", str(model), f"{place}/converted", "--to", "minit2v"],
        "train": lambda place: ["train", "autoencoder", "--preset", "nano", "--out", f"{place}/run", *SHORT],
    }
    refused = taken = 0
    kind = ""
    for name, work in works.items():
        need = needed(folder, work)
        for share in [0.0, *(rng.random() for _ in range(asked.disks - 1))]:
            if time.monotonic() > end:
                break
            with small_disk(folder, 2 * need + 2**20) as (place, mounted):
                kind = "a disk of its own" if mounted else "a limit on files"
                said, status = limited(place, work(place), int(need * share), mounted)
                if status not in (0, 2) or status == 2 and not said.splitlines()[-1].startswith("minit2v: "):
                    found = f"ended with status {status}: {said[-700:]}"
                    raise Wrong(f"{name} with room for {share:.0%} of its output {found}")
                if status == 2:
                    leftovers([path for path in place.rglob(".*") if path.name not in (".lock", ".owner")])
                    refused += 1
                taken += not status
                (place / "filler").unlink(missing_ok=True)
                again = work(place) + ["--resume"] * (name == "train" and (place / "run" / "checkpoint.pt").exists())
                if name == "convert":
                    shutil.rmtree(place / "converted", ignore_errors=True)
                said, status = limited(place, again, None, mounted)
                if status:
                    raise Wrong(f"{name} with enough room again ended with status {status}: {said[-700:]}")
            shutil.rmtree(place)
    return f"{refused} refusals on {kind}, each one line with nothing left; {taken} fitted; with room, all went on"


def needed(folder: Path, work: Callable) -> int:
    """Bytes that a command writes."""
    place = folder / "room"
    place.mkdir()
    said, status = limited(place, work(place), None, True)
    if status:
        raise Wrong(f"status {status}: {said[-700:]}")
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    shutil.rmtree(place)
    return size


def limited(place: Path, arguments: list[str], room: int | None, mounted: bool) -> tuple[str, int]:
    """(what it says, status) of a command in a process of its own that finds so many bytes free; None is enough."""
    if room is not None and mounted:
        status = os.statvfs(place)
        (place / "filler").write_bytes(b"\0" * max(0, status.f_bavail * status.f_frsize - room - 2 * status.f_frsize))
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        if room is not None and not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        try:
            status = command_line(arguments)
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(status or 0)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as file:
        said = file.read()
    return said, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


PARTS = {"kills": kills, "samples": samples, "together": together, "disk": disk}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--minutes", type=float, default=15.0, help="of each part, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--disks", type=int, default=4, help="sizes of a full disk for each command")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    for name in asked.only:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                said = PARTS[name](asked, Path(folder))
            except (Wrong, UserError) as error:
                failed, said = failed + 1, f"WRONG: {error}"
                for report in Path(folder).rglob("failed.txt"):
                    said += f"\n{report.read_text()[-1500:]}"
        print(f"{name}: {said} ({time.monotonic() - began:.0f} s)", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
