"""A run on disk: checkpoint.pt, from which a training goes on exactly where it was.

    settings   of the loop, the task, the preset and the data: it is resumed only with the same ones
    task, averaged, optimizer, step, elapsed

It is written atomically, so a kill at any moment leaves the one before.
"""

import tempfile
from pathlib import Path

import torch

from minit2v.errors import UserError
from minit2v.files import atomic
from minit2v.training.sharding import whole

MAY_CHANGE_ON_RESUME = ("budget", "train_steps", "accumulate", "save_every", "sample_every")


def check_place(out: Path, resume: bool) -> Path:
    """The path of the checkpoint of a run in `out`; removes the half-written file that a kill may have left beside it.

    Raises UserError when there is a checkpoint but `resume` is False, the other way round, or when `out` cannot be
    written.
    """
    checkpoint = Path(out) / "checkpoint.pt"
    if resume and not checkpoint.exists():
        raise UserError(f"nothing to resume: {checkpoint} does not exist; run the same command without --resume")
    if not resume and checkpoint.exists():
        raise UserError(f"{out} already holds a run; add --resume to go on with it, or choose another --out")
    there = next(folder for folder in checkpoint.absolute().parents if folder.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise UserError(f"cannot write in {out} ({error.strerror or error}); choose another --out") from None
    for orphan in checkpoint.parent.glob(".checkpoint-*.pt"):  # of a run killed while it saved
        orphan.unlink(missing_ok=True)
    return checkpoint


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
    """Load a checkpoint into the task, its average and the optimizer; returns (step, elapsed seconds)."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        before = state["settings"]
        kept = [name for name in before | settings if name not in MAY_CHANGE_ON_RESUME]
        changed = [name for name in kept if before.get(name) != settings.get(name)]
    except Exception as error:
        raise UserError(
            f"{path} is damaged or no checkpoint of minit2v ({type(error).__name__}); delete it and start again"
        ) from None
    if changed:
        raise UserError(f"{path} was trained with other settings ({', '.join(changed)}); resume with the same ones")
    try:
        task.load_state_dict(state["task"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError):
        raise UserError(f"{path} is of another preset or network; resume with the preset it was started with") from None
    return state["step"], state["elapsed"]
