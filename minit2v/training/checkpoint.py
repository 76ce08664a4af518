"""A run on disk: checkpoint.pt, from which a training goes on exactly where it was.

    settings   of the loop, the task, the preset and the data: it is resumed only with the same ones
    task, averaged, optimizer, step, elapsed

It is written atomically, so a kill at any moment leaves the one before. What is read has the checksums, the types and the
finite numbers of what was written, and its parts agree about the steps that are done. The options of the optimizer are
those of the settings. One process at a time works in a run's folder.
"""

import math
import os
import platform
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch.utils._pytree import tree_leaves

from minit2v.checkpoints.fill import finite
from minit2v.errors import UserError
from minit2v.files import atomic, check_creatable, refuse_folder, written
from minit2v.training.sharding import whole

MAY_CHANGE_ON_RESUME = ("budget", "train_steps", "accumulate", "save_every", "sample_every")


def check_place(out: Path, resume: bool) -> Path:
    """The path of the checkpoint of a run in `out`.

    Raises UserError when there is a checkpoint but `resume` is False, the other way round, or when `out` cannot be
    written.
    """
    checkpoint = Path(out) / "checkpoint.pt"
    begun = os.path.exists(checkpoint)  # False where a name is too long, which Path.exists raises for
    if resume and not begun:
        raise UserError(f"nothing to resume: {checkpoint} does not exist; run the same command without --resume")
    if not resume and begun:
        raise UserError(f"{out} already holds a run; add --resume to go on with it, or choose another --out")
    check_creatable(checkpoint, f"in {out}")
    return checkpoint


@contextmanager
def owned(out: Path, writes: bool = True) -> Iterator[None]:
    """Keep a run's folder for this process; the system gives it free when the process ends, in whatever way. Removes a
    half-written checkpoint that a kill has left. Of several ranks one `writes`, the others do nothing here.

    Raises UserError that names the process which has the folder, and where a folder is in the place of a file.
    """
    if not writes:
        yield
        return
    with written(out):
        out.mkdir(parents=True, exist_ok=True)
    owner, place = out / ".owner", out / ".lock"
    refuse_folder(place)
    with written(place):  # a link is not followed
        try:
            lock = FileLock(place).acquire(timeout=0)
        except Timeout:
            found = owner.read_text(encoding="utf-8") if owner.is_file() else "another process"
            raise UserError(f"{out}: {found} trains there; wait for it, or choose another --out") from None
    with lock:
        with atomic(owner) as unfinished:
            unfinished.write_text(f"process {os.getpid()} of {platform.node()}", encoding="utf-8")
        for orphan in out.glob(".checkpoint-*.pt"):
            orphan.unlink(missing_ok=True)
        yield


def write_checkpoint(
    path, task, averaged, optimizer, settings: dict, step: int, elapsed: float, writes: bool = True
) -> None:
    """Everything that `restore` needs, in one file. Every rank calls it, one of them `writes`."""
    state = {
        "task": whole(task.state_dict()),
        "averaged": whole(averaged.state_dict()),
        "optimizer": whole(optimizer.state_dict()),
        "step": step,
        "elapsed": elapsed,
        "settings": settings,
    }
    if not writes:
        return
    with atomic(path) as unfinished:
        try:
            torch.save(state, unfinished)
        except RuntimeError as error:  # PyTorch's writer, on a full disk
            raise OSError(str(error).splitlines()[0]) from None


def restore(path: Path, task, averaged, optimizer, settings: dict) -> tuple[int, float]:
    """Load a checkpoint into the task, its average and the optimizer; returns (step, elapsed seconds).

    Raises UserError for the checkpoint of another run, for one that no training writes, and for fewer steps or seconds
    than are done.
    """
    state = read_checkpoint(path)
    before = state["settings"]
    changed = [name for name in before | settings
               if before.get(name) != settings.get(name) and not may_differ(name, before, settings)]  # fmt: skip
    if changed:
        raise UserError(f"{path} was trained with other settings ({', '.join(changed)}); resume with the same ones")
    options, kept = optimizer.state_dict()["param_groups"], state["optimizer"]
    numbers = lambda groups: [group["params"] for group in groups]
    try:
        if numbers(kept["param_groups"]) != numbers(options):
            raise ValueError("other parameters")
        task.load_state_dict(state["task"])
        averaged.load_state_dict(state["averaged"])
        if not (wrong := next(contradictions(state, task, averaged, optimizer), None)):
            optimizer.load_state_dict({"state": kept["state"], "param_groups": options})
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is of another preset or network; resume with the preset it was started with") from None
    if wrong:
        raise UserError(f"{path} is damaged or no checkpoint of minit2v ({wrong}); delete it and start again")
    name, done = ("train_steps", state["step"]) if settings["train_steps"] else ("budget", state["elapsed"])
    if done > settings[name] and (name == "train_steps" or settings[name] != before.get(name)):
        raise UserError(f"{name}: expected {math.ceil(done)} or more, as {done:.6g} are done in {path}, found "
                        f"{settings[name]:g}; with {math.ceil(done)} the model is written as it is")  # fmt: skip
    return state["step"], state["elapsed"]


def contradictions(state: dict, task, averaged, optimizer) -> Iterator[str]:
    """What no training writes, in a checkpoint whose networks are loaded: somebody has edited it."""
    step = state["step"]
    if (steps := int(state["averaged"]["n_averaged"])) != step:
        yield f"step {step}, an average of {steps} steps"
    for part, module in {"task": task, "averaged": averaged}.items():
        for name, value in module.state_dict().items():
            if state[part][name].dtype != value.dtype:
                yield f"{name} is {state[part][name].dtype}"
    yield from _of_the_optimizer(state["optimizer"]["state"], step, task, averaged, optimizer)


def _of_the_optimizer(entries: dict, step: int, task, averaged, optimizer) -> Iterator[str]:
    parameters = [(p, group) for group in optimizer.param_groups for p in group["params"]]
    if not entries.keys() <= set(range(len(parameters))) or step > 0 and not entries:
        yield f"the optimizer knows {len(entries)} parameters"
    averages = dict(averaged.module.named_parameters())
    means = {p: averages[name] for name, p in torch.nn.ModuleDict(task.ema_modules).named_parameters()}
    for i, (p, group) in enumerate(parameters):
        if i not in entries:
            if p in means and not torch.equal(p, means[p]):  # it has moved since the average began with it
                yield f"the optimizer does not know parameter {i}"
            continue
        if entries[i].keys() != optimizer.keeps(group) or not 0 <= entries[i]["step"] <= step:
            yield f"the optimizer keeps {', '.join(map(str, entries[i]))} of parameter {i}, at step {step}"
        if any((value.shape, value.dtype) != (p.shape, p.dtype) for name, value in entries[i].items() if name != "step"):
            yield f"the optimizer keeps other shapes or numbers of parameter {i}"


def read_checkpoint(path: Path) -> dict:
    """What `write_checkpoint` wrote. Raises UserError for anything else: another file, or a bit that has changed."""
    try:
        with zipfile.ZipFile(path) as file:  # PyTorch writes its checksums and does not read them
            if damaged := file.testzip():
                raise ValueError(f"a checksum of {damaged}")
        state = torch.load(path, map_location="cpu", weights_only=True)
        kinds = {name: dict for name in ("task", "averaged", "optimizer", "settings")} | {"step": int, "elapsed": Real}
        for name, kind in kinds.items():
            if not isinstance(state[name], kind) or isinstance(state[name], bool):
                raise ValueError(f"{name} is {type(state[name]).__name__}")
        if state["step"] < 0 or not 0 <= state["elapsed"] < math.inf:
            raise ValueError(f"step {state['step']}, {state['elapsed']} seconds")
        numbers = [leaf for leaf in tree_leaves(state) if isinstance(leaf, torch.Tensor)]
        if not all(finite(leaf) for leaf in numbers if leaf.is_floating_point()):
            raise ValueError("numbers that are not finite")
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise UserError(f"{path} is damaged or no checkpoint of minit2v ({reason}); delete it and start again") from None
    return state


def may_differ(name: str, before: dict, settings: dict) -> bool:
    """Whether a resumed run may have another setting of that name. Runs before 2026-12 do not say what they stand on."""
    of_file = name == "--from" or name.endswith(".safetensors")
    return name in MAY_CHANGE_ON_RESUME or of_file and not (name in before and name in settings)
