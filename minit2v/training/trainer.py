"""One training loop for all networks: budgeted by the clock, resumable at any moment, on one process or many.

    task.draw(generator(seed, step), n) ──slice of this rank──► task(batch) ──► loss ──► Muon ──► EMA
                                                                      │
             checkpoint.pt (atomic) ◄── every few minutes ────────────┤────► picture.png, log.jsonl

A *task* is an nn.Module that owns what is trained. All randomness of step s comes from ``task.draw`` with a generator
seeded by (seed, s), drawn for the global batch and then divided between the ranks: a killed run goes on exactly where
it was, and two ranks see together what one rank with the same global batch would see.

References: AdamW, arXiv 1711.05101, and Muon for the matrices that a task names (see `muon`); EMA of weights as in
DDPM, arXiv 2006.11239, section 4; distribution by accelerate.
"""

import math
import time
import warnings
from collections.abc import Callable
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from minit2v.errors import UserError, listening
from minit2v.memory.allocator import keep_freed_memory
from minit2v.ranges import Checked, Count, Decay, Positive, Range, Size, Weight
from minit2v.ranks import on_cpus, require_accelerate
from minit2v.training.checkpoint import check_place, owned, restore, write_checkpoint
from minit2v.training.log import Log
from minit2v.training.muon import Muon
from minit2v.training.sharding import follow, move_state, parameters_of, reunite


@dataclass(frozen=True)
class TrainConfig(Checked):
    """Settings of the loop; those of the network and its loss are the task's."""

    budget: Positive = 3600.0  # seconds of training steps, over all resumes; the learning rate follows it
    train_steps: Count = 0  # instead of a budget: exactly so many steps (0: the budget rules)
    batch: Size = 32  # items of a step, over all ranks together
    accumulate: Size = 1  # parts of a rank's items, computed in turn: less memory, one step, for a loss that is a mean
    lr: Positive = 1e-3  # peak learning rate
    warmup: Decay = 0.02  # share of the run in which the rate rises from 0
    weight_decay: Weight = 0.01  # of AdamW
    betas: tuple[Decay, Decay] = (0.9, 0.99)  # of AdamW: decay of the mean gradient and of its mean square, a step
    grad_clip: Annotated[float, Range(0, math.inf, above=True)] = 1.0  # largest norm of the gradient; inf is off
    ema: Decay = 0.999  # decay of the averaged weights, a step
    seed: Annotated[int, Range(0, 2**40)] = 0  # of everything drawn
    save_every: Annotated[float, Range(0, math.inf)] = 120.0  # seconds between checkpoints
    sample_every: Annotated[float, Range(0, math.inf)] = 300.0  # seconds between pictures


class Task(Protocol):
    """What the loop trains: an nn.Module with these, and if it likes ``parameter_groups(lr)`` for an optimizer."""

    progress: float  # 0 to 1, set by the loop before every step
    ema_modules: dict[str, nn.Module]  # averaged and exported, each under its network's name
    # see_averages(averaged modules), if it learns from them
    # may_be_sharded: bool, if it computes with parameters in pieces too (see `sharding`)

    def draw(self, generator: torch.Generator, n: int) -> dict: ...  # a global batch, from generator and progress alone
    def __call__(self, batch: dict) -> tuple[Tensor, dict[str, float]]: ...  # loss and what to log
    def picture(self): ...  # uint8 (H, W, 3) or None


def train(
    task: nn.Module,
    out: Path,
    config: TrainConfig,
    resume: bool = False,
    settings: dict | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> nn.ModuleDict:
    """Train until the budget is spent; returns the averaged modules.

    Writes into `out`: checkpoint.pt, log.jsonl (a line every few seconds), picture.png. Ctrl-C saves and says how to
    go on. `settings` are those of the task: a run is resumed only with the same ones. `clock` gives the seconds that
    the budget counts. Raises UserError when `out` holds a run and resume is False, when there is none to resume, or
    when it was another run, or when another process trains there.
    """
    require_accelerate()
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    if not torch.cuda.is_available():
        keep_freed_memory()
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)  # temporal layers, in an image batch
    accelerator = Accelerator(cpu=on_cpus(), kwargs_handlers=[unused])
    if accelerator.distributed_type == "FSDP" and not getattr(task, "may_be_sharded", False):
        found = type(task).__name__
        raise UserError(f"FSDP: expected the part unet, found {found}; its networks fit on every card, launch without")
    if config.batch % (n := accelerator.num_processes * config.accumulate):
        raise UserError(f"batch: expected a multiple of {n}, processes times accumulate, found {config.batch}")
    with owned(Path(out), accelerator.is_main_process):
        return loop(accelerator, task, Path(out), config, resume, settings or {}, clock)


def loop(
    accelerator, task: nn.Module, out: Path, config: TrainConfig, resume: bool, settings: dict, clock: Callable
) -> nn.ModuleDict:
    """`train`, in a folder that no other process trains in."""
    task.to(accelerator.device).train()
    groups = task.parameter_groups(config.lr) if hasattr(task, "parameter_groups") else [{"params": task.parameters()}]
    optimizer = Muon(groups, lr=config.lr, weight_decay=config.weight_decay, betas=config.betas)
    rates = [group["lr"] for group in optimizer.param_groups]
    averaged = AveragedModel(nn.ModuleDict(task.ema_modules), multi_avg_fn=moving_average(config.ema), use_buffers=True)
    step, elapsed = 0, 0.0
    checkpoint, settings = check_place(out, resume), asdict(config) | settings
    if resume:
        step, elapsed = restore(checkpoint, task, averaged, optimizer, settings)
    model, optimizer = prepare(accelerator, task, averaged, optimizer)
    if hasattr(task, "see_averages"):
        task.see_averages(averaged.module)
    log = Log(out, accelerator.is_main_process, step)
    save = lambda: write_checkpoint(
        checkpoint, task, averaged, optimizer, settings, step, elapsed, accelerator.is_main_process
    )
    saved = pictured = elapsed
    if not resume:
        accelerator.wait_for_everyone()  # no rank may find a run here that another has just begun
        save()  # from here on a stop of any kind leaves a run to resume
    stop = False
    with interruption() as interrupted, closing(log):
        while (progress := fraction(config, step, elapsed)) < 1:
            if stop:
                save()
                raise UserError(
                    f"stopped at step {step}, saved in {checkpoint}; the same command with --resume goes on"
                )
            started = clock()
            reseed_dropout(config.seed, step, accelerator)
            task.progress = progress
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * learning_rate(progress, config.warmup)
            batch = share(task.draw(step_generator(config.seed, step), config.batch), accelerator)
            loss, metrics = backward(accelerator, model, batch, config.accumulate)
            norm = accelerator.clip_grad_norm_(task.parameters(), config.grad_clip)
            if not (torch.isfinite(loss) and torch.isfinite(norm)):
                raise UserError(
                    f"expected a loss and a gradient that are finite, found {loss.item()} and {float(norm)} at step {step}; "
                    f"start again in another --out with --set lr= below {config.lr}"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            averaged.update_parameters(nn.ModuleDict(task.ema_modules))
            step += 1
            elapsed, stop = agree(accelerator, elapsed + clock() - started, bool(interrupted))
            log(step, elapsed, progress, {"loss": loss.item(), "norm": float(norm), **metrics})
            if elapsed - saved >= config.save_every:
                save()
                saved = elapsed
            if elapsed - pictured >= config.sample_every:
                show(task, log)
                pictured = elapsed
        save()
        show(task, log)
    reunite(averaged)
    return averaged.module


def prepare(accelerator, task: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer):
    """(what is called for the loss, optimizer) for all ranks; under FSDP the task, its average and the optimizer's
    state are cut in pieces."""
    before = parameters_of(optimizer)
    if accelerator.distributed_type == "FSDP":
        task.to(memory_format=torch.contiguous_format)  # it cuts no others
    model, optimizer = accelerator.prepare(task, optimizer)
    move_state(optimizer, before)
    follow(averaged.module, nn.ModuleDict(task.ema_modules))
    return model, optimizer


def backward(accelerator, model: nn.Module, batch: dict, parts: int) -> tuple[Tensor, dict[str, float]]:
    """Add the gradients of a batch, which is computed in `parts`; returns its loss and what the last part logs."""
    losses = []
    for i in range(parts):
        last = i + 1 == parts
        with nullcontext() if last else accelerator.no_sync(model):  # ranks exchange gradients once
            loss, metrics = model({key: value[i::parts] for key, value in batch.items()})
            accelerator.backward(loss / parts)
        losses.append(loss.detach())
    return torch.stack(losses).mean(), metrics


@contextmanager
def interruption():
    """A list to which Ctrl-C adds an item, and so do the signals of a closed terminal and of a machine that shuts down:
    the loop looks at it between two steps, so no step is saved half done."""
    interrupted = []
    with listening(lambda *_: interrupted.append(True), "SIGINT", "SIGTERM", "SIGHUP"):
        yield interrupted


def show(task: nn.Module, log: Log) -> None:
    """The task's picture, without dropout. A training does not end for want of one: a caption may be one of no words."""
    task.eval()
    try:
        log.picture(task.picture())
    except UserError as error:
        warnings.warn(f"left out the picture of the run: {error}", stacklevel=2)
    task.train()


def moving_average(decay: float):
    """EMA with a warm-up: the untrained start would otherwise weigh decay^n after n steps, 37 % of 0.999's 1,000.

    The decay after n steps is at most (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage.
    """

    def average(means: list[Tensor], now: list[Tensor], n: Tensor) -> None:
        kept = min(decay, (1 + float(n)) / (10 + float(n)))  # eq (9.2) · DDPM section 4, with a warm-up
        get_ema_multi_avg_fn(kept)(means, now, n)

    return average


def learning_rate(progress: float, warmup: float) -> float:
    """Factor on the peak rate: a straight rise over the first `warmup` of the run, then half a cosine down to 0.

    >>> learning_rate(0.05, 0.1), learning_rate(0.1, 0.1), round(learning_rate(1.0, 0.1), 6)
    (0.5, 1.0, 0.0)
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def fraction(config: TrainConfig, step: int, elapsed: float) -> float:
    """How much of the run is done, 0 to 1."""
    return step / config.train_steps if config.train_steps else elapsed / config.budget


def agree(accelerator, elapsed: float, stop: bool) -> tuple[float, bool]:
    """Elapsed seconds by the first rank's clock, and whether any rank is to stop: all of them save, show and stop after
    the same step."""
    if accelerator.num_processes == 1:
        return elapsed, stop
    said = [elapsed if accelerator.is_main_process else 0.0, float(stop)]
    said = torch.tensor(said, dtype=torch.float64, device=accelerator.device)
    torch.distributed.all_reduce(said, torch.distributed.ReduceOp.MAX)
    return said[0].item(), bool(said[1])


def reseed_dropout(seed: int, step: int, accelerator) -> None:
    """Seed PyTorch's own generator, from which dropout draws, for a step and rank: a resumed run repeats nothing."""
    torch.manual_seed((seed * 1_000_003 + step) * accelerator.num_processes + accelerator.process_index)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of everything random in one step."""
    return torch.Generator("cpu").manual_seed(seed * 1_000_003 + step)


def share(batch: dict, accelerator) -> dict:
    """This rank's part of every entry of the batch: items rank, rank + world, …, on this rank's device."""
    part = slice(accelerator.process_index, None, accelerator.num_processes)
    cut = {key: value[part] for key, value in batch.items()}
    return {key: value.to(accelerator.device) if isinstance(value, Tensor) else value for key, value in cut.items()}
