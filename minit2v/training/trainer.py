"""One training loop for all three networks: budgeted by the clock, resumable at any moment, on one process or many.

    task.draw(generator(seed, step), n) ──slice of this rank──► task(batch) ──► loss ──► AdamW ──► EMA
                                                                      │
             checkpoint.pt (atomic) ◄── every few minutes ────────────┤────► picture.png, log.jsonl

A *task* is an nn.Module that owns what is trained. All randomness of step s comes from ``task.draw`` with a generator
seeded by (seed, s), drawn for the global batch and then cut up between the ranks: a killed run goes on exactly where
it was, and two ranks see what one rank with the same global batch would see.

References: AdamW, arXiv 1711.05101; EMA of weights as in DDPM, arXiv 2006.11239, section 4; distribution by accelerate.
"""

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from minit2v.errors import UserError
from minit2v.files import atomic
from minit2v.training.log import Log


@dataclass(frozen=True)
class TrainConfig:
    """How to train; what to train is the task's business."""

    budget: float = 3600.0  # seconds of training, over all resumes; the learning rate follows it
    steps: int = 0  # instead of a budget: exactly so many steps (0: the budget rules)
    batch: int = 32  # items of a step, over all ranks together
    lr: float = 1e-3  # peak learning rate
    warmup: float = 0.02  # share of the run in which the rate rises from 0
    weight_decay: float = 0.01  # of AdamW
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.999  # decay of the averaged weights, a step
    seed: int = 0  # of everything drawn
    save_every: float = 120.0  # seconds between checkpoints
    sample_every: float = 300.0  # seconds between pictures


class Task(Protocol):
    """What the loop needs of a network in training."""

    progress: float  # 0 to 1, set by the loop before every step
    ema_modules: dict[str, nn.Module]  # what is averaged and exported

    def draw(self, generator: torch.Generator, n: int) -> dict: ...  # a global batch, a function of the generator alone
    def __call__(self, batch: dict) -> tuple[Tensor, dict[str, float]]: ...  # loss and what to log
    def picture(self): ...  # uint8 (H, W, 3) or None


def train(task: nn.Module, out: Path, config: TrainConfig, resume: bool = False) -> nn.ModuleDict:
    """Train until the budget is spent; returns the averaged modules.

    Writes into `out`: checkpoint.pt, log.jsonl (a line every few seconds), picture.png. Ctrl-C saves and says how to
    go on. Raises UserError when `out` holds a run and resume is False, when there is none to resume, or when it was
    another run.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    if not torch.cuda.is_available():
        keep_freed_memory()
    # the temporal layers have no part in an image batch
    accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    if config.batch % accelerator.num_processes:
        n = accelerator.num_processes
        raise UserError(f"expected a batch that {n} processes can share, found {config.batch}; choose a multiple")
    task.to(accelerator.device).train()
    groups = task.parameter_groups(config.lr) if hasattr(task, "parameter_groups") else task.parameters()
    optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.99))
    rates = [group["lr"] for group in optimizer.param_groups]
    averaged = AveragedModel(
        nn.ModuleDict(task.ema_modules), multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True
    )
    out, step, elapsed = Path(out), 0, 0.0
    checkpoint = out / "checkpoint.pt"
    if resume:
        step, elapsed = restore(checkpoint, task, averaged, optimizer, config)
    elif checkpoint.exists():
        raise UserError(f"{out} already holds a run; add --resume to go on with it, or choose another --out")
    model, optimizer = accelerator.prepare(task, optimizer)
    log = Log(out, accelerator.is_main_process, step)
    save = lambda: (
        accelerator.is_main_process and write_checkpoint(checkpoint, task, averaged, optimizer, config, step, elapsed)
    )
    saved = pictured = elapsed
    try:
        while (progress := fraction(accelerator, config, step, elapsed)) < 1:
            started = time.perf_counter()
            task.progress = progress
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * learning_rate(progress, config.warmup)
            batch = share(task.draw(step_generator(config.seed, step), config.batch), accelerator)
            loss, metrics = model(batch)
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"the loss is {loss.item()} at step {step}; lower --set lr= (now {config.lr}) and --resume"
                )
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(task.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            averaged.update_parameters(nn.ModuleDict(task.ema_modules))
            step += 1
            elapsed += time.perf_counter() - started
            log(step, elapsed, progress, {"loss": loss.item(), "norm": float(norm), **metrics})
            if elapsed - saved >= config.save_every:
                save()
                saved = elapsed
            if elapsed - pictured >= config.sample_every:
                log.picture(task.picture())
                pictured = elapsed
        save()
        log.picture(task.picture())
    except KeyboardInterrupt:
        save()
        raise UserError(
            f"stopped at step {step}, saved in {checkpoint}; the same command with --resume goes on"
        ) from None
    finally:
        log.close()
    return averaged.module


def learning_rate(progress: float, warmup: float) -> float:
    """Factor on the peak rate: a straight rise over the first `warmup` of the run, then half a cosine down to 0.

    >>> learning_rate(0.05, 0.1), learning_rate(0.1, 0.1), round(learning_rate(1.0, 0.1), 6)
    (0.5, 1.0, 0.0)
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def fraction(accelerator, config: TrainConfig, step: int, elapsed: float) -> float:
    """How much of the run is done, 0 to 1; by the first rank's clock, so that all ranks stop together."""
    if config.steps:
        return step / config.steps
    done = torch.tensor(elapsed / config.budget, device=accelerator.device)
    if accelerator.num_processes > 1:
        torch.distributed.broadcast(done, src=0)
    return done.item()


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of everything random in one step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def share(batch: dict, accelerator) -> dict:
    """This rank's part of every entry of the batch: items rank, rank + world, …, on this rank's device."""
    part = slice(accelerator.process_index, None, accelerator.num_processes)
    cut = {key: value[part] for key, value in batch.items()}
    return {key: value.to(accelerator.device) if isinstance(value, Tensor) else value for key, value in cut.items()}


def write_checkpoint(path, task, averaged, optimizer, config: TrainConfig, step: int, elapsed: float) -> None:
    """Everything that `restore` needs, in one file."""
    state = {
        "task": task.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "elapsed": elapsed,
        "config": asdict(config),
    }
    with atomic(path) as unfinished:
        torch.save(state, unfinished)


def restore(path: Path, task, averaged, optimizer, config: TrainConfig) -> tuple[int, float]:
    """Load a checkpoint into the task, its average and the optimizer; returns (step, elapsed seconds)."""
    if not path.exists():
        raise UserError(f"nothing to resume: {path} does not exist; run the same command without --resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        before = TrainConfig(**state["config"])
    except Exception as error:
        raise UserError(
            f"{path} is damaged or no checkpoint of minit2v ({type(error).__name__}); delete it and start again"
        ) from None
    same = replace(
        before, budget=config.budget, steps=config.steps, save_every=config.save_every, sample_every=config.sample_every
    )
    if same != config:
        changed = [
            name
            for name, value in asdict(before).items()
            if value != asdict(config)[name] and asdict(same)[name] != asdict(config)[name]
        ]
        raise UserError(f"{path} was trained with other settings ({', '.join(changed)}); resume with the same ones")
    try:
        task.load_state_dict(state["task"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError):
        raise UserError(f"{path} is of another preset or network; resume with the preset it was started with") from None
    return state["step"], state["elapsed"]


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks: a training step frees and asks for the same gigabytes every time, and
    returning them
    to the system makes each first touch a page fault. No effect elsewhere."""
    import ctypes

    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD: serve large blocks from the heap
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD: and do not give the heap back
    except OSError:
        pass  # not glibc
