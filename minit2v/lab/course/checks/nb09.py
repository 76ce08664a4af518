"""Checks of notebook 09, Training text-to-video on a CPU: the training step, dropped captions, the average, its start."""

import copy
import math
import numbers

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minit2v.diffusion.process import Diffusion
from minit2v.lab.course.comparing import called, normal, recognised, same_dtype
from minit2v.lab.course.exercises import Failed, close, exercise, same_shape
from minit2v.lab.course.questions import Question
from minit2v.presets import DiffusionConfig

_TRAINING = "tests/test_training.py::"
EQUATIONS = {
    "9.1": ("what the bound weighs each timestep by",
            "tests/test_diffusion.py::test_the_bound_weighs_by_the_signal_that_a_step_wins"),
    "9.2": ("the average of the weights, with a warm-up", "tests/test_trainer.py::test_average_forgets_the_start"),
    "9.3": ("dropped captions", _TRAINING + "test_what_the_unet_is_shown"),
    "9.4": ("caption sensitivity", _TRAINING + "test_a_picture_shows_clips_and_measures_the_captions"),
}  # fmt: skip

QUIZ = [
    (
        "The loss of your video model stands still at 0.31. Is it still learning?",
        ["No: a loss that stands still is the end of training", "The loss alone cannot tell", "Yes: it always stands still"],
        1,
        "A perfect model has a loss above 0, and which timesteps were drawn moves the loss more than late learning does. "
        "Look at single noise levels, at samples, and at what a wrong caption costs.",
    ),
    (
        "Caption sensitivity is 0 % at every noise level, and the samples are sharp. What is wrong?",
        ["The learning rate", "Nothing", "The model does not read captions"],
        2,
        "A wrong caption costs it nothing, so it has learnt clips without their captions. Guidance cannot help: it would "
        "enlarge a difference of zero.",
    ),
    (
        "A training is resumed from a file that holds the weights and nothing else. What is lost?",
        ["Nothing that matters", "The optimiser's means, the average of the weights, and where the training was",
         "Only the curve of the loss"],
        1,
        "Adam starts again with empty means, the average starts from one set of weights, and the learning rate rises anew.",
    ),
]  # fmt: skip


def hardest_word():
    """The attribute whose wrong word costs most at t = 0.8 of T, at the end of the recorded training."""
    from minit2v.recording.run import TrainingRun

    curves = TrainingRun.load("nano-video-with-pictures").curves
    return max(("shape", "colour", "size", "motion", "speed"), key=lambda name: curves[f"wrong {name} t=0.8"][1][-1])


PREDICTIONS = {
    "9.a": Question("The oracle of notebook 06 is asked for the noise in a noisy point, and nobody can do better. What is "
                    "its mean squared error? (The noise has variance 1.)", "about 0.4", ["0", "about 0.4", "about 1"]),
    "9.b": Question("You average the weights with a decay of 0.9999 and stop after 1,000 steps. How many percent of the "
                    "average are the starting weights, which know nothing?",
                    round(100 * 0.9999**1000, 1), tolerance=2.0),
    "9.c": Question("After the recorded training, at t = 0.8 of T: which wrong word costs the model most?", hardest_word,
                    ["shape", "colour", "size", "motion", "speed"]),
}  # fmt: skip


# --- 9.1, the training step


def train_step(network, optimizer, diffusion, x0, told, generator):
    """One step on a batch of clips x0 (b, …) and what is told of them; returns the loss, a number."""
    t = torch.randint(len(diffusion.alpha_bar), (len(x0),), generator=generator)
    noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    output = network(diffusion.add_noise(x0, noise, t), t, told)
    loss = diffusion.loss(output, x0, noise, t)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


class _Listener(nn.Module):
    """A small network for data of any shape (b, k, …) that remembers what it was asked."""

    def __init__(self, shape, told, dtype, seed):
        super().__init__()
        k = shape[1]
        self.weight = nn.Parameter(normal(k, k, seed=seed).to(dtype))
        self.bias = nn.Parameter(normal(k, seed=seed + 1).to(dtype))
        self.hears = None if told is None else nn.Parameter(normal(told.shape[-1], k, seed=seed + 2).to(dtype))
        self.asked, self.heard_back = [], False
        self.weight.register_hook(self._hear)

    def _hear(self, gradient):
        self.heard_back = True

    def forward(self, x, t, told=None):
        self.asked.append((x, t, told))
        shape = (len(x), -1, *[1] * (x.ndim - 2))
        h = torch.einsum("bk...,kj->bj...", x, self.weight) + self.bias.reshape(1, *shape[1:]).to(x)
        h = h * (1 + torch.as_tensor(t, dtype=x.dtype).expand(len(x)) / 500).reshape(len(x), *[1] * (x.ndim - 1))
        return h if told is None else h + (told.mean(1).to(x) @ self.hears).reshape(shape)


CASES = (  # prediction, timesteps, shape of x0, shape of what is told, dtype, optimizer, steps
    ("eps", 1000, (7, 2), None, torch.float32, lambda p: torch.optim.SGD(p, lr=0.05), 3),
    ("v", 37, (3, 4, 2, 5, 3), (3, 6, 5), torch.float32, lambda p: torch.optim.Adam(p, lr=0.01), 3),
    ("x0", 400, (2, 3, 4, 2, 5), (2, 3, 4), torch.float64, lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9), 4),
    ("v", 1000, (1, 4, 3, 2, 2), (1, 2, 7), torch.float32, lambda p: torch.optim.Adam(p, lr=0.01), 2),
)


@exercise("9.1", name="train_step", solution=train_step, minutes=20, difficulty=3, importance=5)
def check_train_step(student):
    """Points and clips, three predictions, two optimizers, several steps: what it is asked, and what it learns."""
    for number, (prediction, timesteps, shape, told, dtype, optimizer, steps) in enumerate(CASES):
        diffusion = Diffusion(DiffusionConfig(prediction=prediction, timesteps=timesteps))
        x0 = normal(*shape, seed=number).to(dtype)
        told = None if told is None else normal(*told, seed=9 + number).to(dtype)
        mine, theirs = (_Listener(shape, told, dtype, seed=3) for _ in range(2))
        optimizers = [optimizer(network.parameters()) for network in (mine, theirs)]
        draws = [torch.Generator().manual_seed(number) for _ in range(2)]
        where = f"with {prediction} and x0 {shape}"
        for step in range(steps):
            before, seed = copy.deepcopy(theirs), draws[1].get_state()
            right = train_step(theirs, optimizers[1], diffusion, x0, told, draws[1])
            given = [None if one is None else one.clone() for one in (x0, told)]
            state = torch.get_rng_state()
            found = student(mine, optimizers[0], diffusion, x0, told, draws[0])
            elsewhere = not torch.equal(state, torch.get_rng_state())
            if not torch.equal(x0, given[0]) or told is not None and not torch.equal(told, given[1]):
                raise Failed("x0 and told as they were", "one of them was changed", "an operation in place, such as x0 *= …")
            _was_asked(mine, theirs, step, diffusion, x0, told, seed, where, elsewhere)
            _says_the_loss(found, right, before, theirs, diffusion, x0, seed, where)
            _has_learnt(mine, theirs, before, step, where)
            _is_ready(mine)
    return "points and clips, eps, x0 and v: the network is asked the right thing and learns as by the library's step"


def _is_ready(network):
    """As a network is found that is being trained."""
    if not network.training or not all(p.requires_grad for p in network.parameters()):
        raise Failed("the network in training mode, with gradients, as it came", "another setting")


def _was_asked(mine, theirs, step, diffusion, x0, told, seed, where, elsewhere):
    if len(mine.asked) != step + 1:
        raise Failed(f"the network asked once in a step {where}", f"{len(mine.asked) - step} times")
    (x, t, said), (right_x, right_t, _) = mine.asked[-1], theirs.asked[-1]
    T, b = len(diffusion.alpha_bar), len(x0)
    draw = lambda *size: torch.randint(*size, generator=torch.Generator().set_state(seed))  # noqa: E731
    first = torch.Generator().set_state(seed)
    torch.randn(x0.shape, generator=first, dtype=x0.dtype)
    noise_first = torch.randint(T, (b,), generator=first)
    unseeded = lambda found: {"not all was drawn with generator=generator": lambda: found} if elsewhere else {}  # noqa: E731
    slips = {
        "one timestep was drawn for the whole batch; each item has its own": lambda: draw(T, (1,)).expand(b),
        "the noise was drawn first; draw t first, so that both draw alike": lambda: noise_first,
        "the last timestep never comes: randint excludes its upper end, which is T": lambda: draw(T - 1, (b,)),
        "timesteps are 0 to T - 1: they are indices": lambda: draw(1, T + 1, (b,)),
        "T is not 1000 for every diffusion; it is len(diffusion.alpha_bar)": lambda: draw(1000, (b,)),
    }
    recognised(f"t {where}", t, right_t, slips | unseeded(t))
    if isinstance(x, Tensor) and x.dtype != x0.dtype:
        raise Failed(f"x of the dtype of x0, {x0.dtype}, {where}", f"{x.dtype}", "torch.randn takes dtype=x0.dtype")
    normal_ = lambda *size: torch.randn(size, generator=_after(seed, T, b), dtype=x0.dtype).expand(x0.shape)  # noqa: E731
    uniform = torch.rand(x0.shape, generator=_after(seed, T, b), dtype=x0.dtype)
    with_noise = lambda noise: diffusion.add_noise(x0, noise, right_t)  # noqa: E731
    ones = [1] * (x0.ndim - 2)
    slips = {
        "the network was shown the clip without noise": lambda: x0,
        "the network was shown the noise alone": lambda: normal_(*x0.shape),
        "noise was added without the factors of equation (5.1): diffusion.add_noise has them":
            lambda: x0 + normal_(*x0.shape),
        "clip and noise changed places in add_noise(x0, noise, t)":
            lambda: diffusion.add_noise(normal_(*x0.shape), x0, right_t),
        "the noise is uniform; it should be normal, torch.randn": lambda: with_noise(uniform),
        "all items have the same noise": lambda: with_noise(normal_(*x0.shape[1:])),
        "all frames of a clip have the same noise": lambda: with_noise(normal_(*x0.shape[:2], 1, *x0.shape[3:])),
        "each channel has one number of noise": lambda: with_noise(normal_(*x0.shape[:2], *ones)),
        "the noise has the dtype of x0: torch.randn(…, dtype=x0.dtype)":
            lambda: with_noise(torch.randn(x0.shape, generator=_after(seed, T, b))),
    }  # fmt: skip
    recognised(f"x {where}", x, right_x, slips | unseeded(x), 1e-5)
    if (said is None) != (told is None) or told is not None and not torch.equal(said, told):
        raise Failed(f"the network told what the step was told {where}", "something else" if said is not None else "nothing")


def _after(seed, T, b):
    """A generator from which t was drawn."""
    generator = torch.Generator().set_state(seed)
    torch.randint(T, (b,), generator=generator)
    return generator


def _says_the_loss(found, right, before, theirs, diffusion, x0, seed, where):
    if isinstance(found, Tensor):
        raise Failed("a number", "a tensor", "loss.item(): a tensor of a loss keeps everything alive that led to it")
    if found is None:
        raise Failed("the loss", "None", "the function does not return its result")
    if not isinstance(found, numbers.Real):
        raise Failed("a number", type(found).__name__)
    x, t, told = theirs.asked[-1]
    noise = torch.randn(x0.shape, generator=_after(seed, len(diffusion.alpha_bar), len(x0)), dtype=x0.dtype)
    with torch.no_grad():
        output, after = before(x, t, told), theirs(x, t, told)
        theirs.asked.pop()
        target = diffusion.target(x0, noise, t)
        slips = {
            "the output was compared with the noise; diffusion.target says what it is to be": F.mse_loss(output, noise),
            "the output was compared with the clip; diffusion.target says what it is to be": F.mse_loss(output, x0),
            "the output was compared with the noisy clip": F.mse_loss(output, x),
            "the errors were added up; the loss is their mean": F.mse_loss(output, target, reduction="sum"),
            "the errors were not squared": F.l1_loss(output, target),
            "this is the root of the mean": F.mse_loss(output, target).sqrt(),
            "this is the loss after the step": F.mse_loss(after, target),
        }
    cause = next((text for text, value in slips.items() if math.isclose(value.item(), found, rel_tol=1e-4)), "")
    close(f"the loss {where}", found, right, 1e-4 * max(1.0, abs(right)), cause)


def _has_learnt(mine, theirs, before, step, where):
    for name, p in theirs.named_parameters():
        now, then = (dict(network.named_parameters())[name] for network in (mine, before))
        if torch.allclose(now, p, rtol=1e-4, atol=1e-5):
            continue
        cause = ""
        if torch.equal(now, then):
            cleared = mine.heard_back and (now.grad is None or not now.grad.any())
            cause = ("zero_grad stands between backward and step, which finds no gradients" if cleared else
                     "the weights did not change: backward, then optimizer.step()")  # fmt: skip
        elif step:
            cause = "in the first step they were right: are the gradients of the step before set to zero?"
        raise Failed(f"{name} after step {step + 1} as the library's {where}", "other numbers", cause)


# --- 9.2, the average of the weights


def ema_step(average, network, decay):
    """Move every weight of `average` towards the network's: decay of the old, 1 - decay of the new; copy buffers."""
    with torch.no_grad():
        for mean, now in zip(average.parameters(), network.parameters()):
            mean.lerp_(now, 1 - decay)
        for mean, now in zip(average.buffers(), network.buffers()):
            mean.copy_(now)


class _Bag(nn.Module):
    """Weights of several sizes, a buffer of floats, one of whole numbers, one weight without gradient."""

    def __init__(self, seed, dtype):
        super().__init__()
        self.linear = nn.Linear(3, 5)
        self.norm = nn.BatchNorm1d(4)
        self.scale = nn.Parameter(torch.zeros(1))
        self.frozen = nn.Parameter(torch.zeros(2, 3, 1), requires_grad=False)
        self.to(dtype)
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(normal(*p.shape, seed=seed + i))
            self.norm.running_mean.copy_(normal(4, seed=seed + 50))
            self.norm.running_var.copy_(normal(4, seed=seed + 51).abs())
            self.norm.num_batches_tracked.fill_(seed)


@exercise("9.2", name="ema_step", solution=ema_step, minutes=10, difficulty=2, importance=4)
def check_ema_step(student):
    """Several decays, two steps, weights and buffers of several kinds, in place and without a graph."""
    for decay, dtype in ((0.9, torch.float32), (0.25, torch.float64), (0.0, torch.float32), (1.0, torch.float32)):
        average, network = _Bag(1, dtype), _Bag(100, dtype)
        for step in range(2):
            if step:
                network.load_state_dict(_Bag(200, dtype).state_dict())
            expected, start, given = copy.deepcopy(average), copy.deepcopy(average), copy.deepcopy(network)
            kept = {name: (p, p.data_ptr()) for name, p in average.named_parameters()}
            ema_step(expected, network, decay)
            student(average, network, decay)
            _is_average(average, expected, start, network, given, kept, decay)
    return "weights and buffers of two steps, in place, without a graph; the network stays as it was"


def _was_left_alone(network, given):
    now, then = ([one.training, *(p.requires_grad for p in one.parameters())] for one in (network, given))
    if now != then:
        raise Failed("the network in the mode in which it was, with the gradients that it had", "another setting")


def _is_average(average, expected, start, network, given, kept, decay):
    for (name, p), q in zip(network.state_dict().items(), given.state_dict().values()):
        if not torch.equal(p, q):
            raise Failed(f"the network's {name} as it was", "it was changed", "only the average moves")
    _was_left_alone(network, given)
    now, old, new = average.state_dict(), start.state_dict(), network.state_dict()
    for name, wanted in expected.state_dict().items():
        if name not in now:
            raise Failed(f"the average's {name}", "nothing of that name")
        told = f"{name} with decay {decay}"
        if name in dict(network.named_buffers()):
            if now[name].dtype != wanted.dtype:
                raise Failed(f"{told} of dtype {wanted.dtype}", f"{now[name].dtype}")
            slips = {
                "buffers are copied: they are counts and statistics": lambda n=name: old[n],
                "buffers are copied, not averaged":
                    lambda n=name: (decay * old[n] + (1 - decay) * new[n]).to(wanted.dtype),
            }  # fmt: skip
            recognised(told, now[name], wanted, slips, 1e-6)
            continue
        slips = {
            "the weights of old and new changed places": lambda n=name: (1 - decay) * old[n] + decay * new[n],
            "this is the network's weight": lambda n=name: new[n],
            "the average did not move": lambda n=name: old[n],
            "the new was added without its factor, 1 - decay": lambda n=name: decay * old[n] + new[n],
            "the old was not multiplied by decay": lambda n=name: old[n] + (1 - decay) * new[n],
            "the new was multiplied by decay as well": lambda n=name: decay * (old[n] + new[n]),
        }
        recognised(told, now[name], wanted, slips, 1e-12 if wanted.dtype == torch.float64 else 1e-6)
        if now[name].dtype != wanted.dtype:
            raise Failed(f"{told} of dtype {wanted.dtype}", f"{now[name].dtype}")
    theirs, before = {p.data_ptr() for p in (*network.parameters(), *network.buffers())}, dict(start.named_parameters())
    for name, p in average.named_parameters():
        if p is not kept[name][0]:
            raise Failed(f"the same parameter {name}, changed in place", "another one", "mean.mul_(…), or mean.lerp_(…)")
        if p.grad_fn is not None or p.requires_grad != before[name].requires_grad:
            raise Failed(f"{name} without a graph, and as it was about gradients", "a graph or another setting",
                         "torch.no_grad() around it, and nothing that sets requires_grad")  # fmt: skip
    for name, p in now.items():
        if p.data_ptr() in theirs:
            raise Failed(f"{name} with numbers of its own", "the network's memory", "copy numbers, do not assign tensors")
    for name, p in average.named_parameters():
        if p.data_ptr() != kept[name][1]:
            raise Failed(f"{name} changed in place", "numbers in another place of memory",
                         "mean.data = … exchanges them; mean.mul_(…) or mean.lerp_(…) changes them")  # fmt: skip


# --- 9.3, dropped captions


def drop_captions(told, nothing, share, generator):
    """told (b, n, d), with the tokens of the empty prompt, nothing (n, d), in the place of a share of them."""
    dropped = torch.rand(len(told), generator=generator) < share
    return torch.where(dropped[:, None, None], nothing, told)


@exercise("9.3", name="drop_captions", solution=drop_captions, minutes=8, difficulty=2, importance=5)
def check_drop_captions(student):
    """Shares from 0 to 1, batches of one and of as many items as tokens, float64."""
    for number, (b, n, d, share, dtype) in enumerate(((9, 4, 5, 0.4, torch.float32), (5, 5, 3, 0.7, torch.float64),
                                                      (1, 3, 6, 0.5, torch.float32), (400, 2, 3, 0.1, torch.float32),
                                                      (6, 3, 2, 0.0, torch.float32), (4, 2, 4, 1.0, torch.float32),
                                                      (1, 3, 4, 0.99, torch.float32))):  # fmt: skip
        told, nothing = normal(b, n, d, seed=number).to(dtype), normal(n, d, seed=20 + number).to(dtype)
        u = lambda *size, number=number: torch.rand(*size, generator=torch.Generator().manual_seed(number))  # noqa: E731
        expected = drop_captions(told, nothing, share, torch.Generator().manual_seed(number))
        found = called(lambda x, y: student(x, y, share, torch.Generator().manual_seed(number)), told, nothing)
        items, where = u(b)[:, None, None] < share, f"with share {share} and told {(b, n, d)}"
        first = torch.arange(n)[:, None] == 0
        drop = lambda where, put=nothing, keep=told: lambda: torch.where(where, put, keep)  # noqa: E731
        slips = {
            "all captions were treated alike; each has its own draw": lambda: told,
            "all captions were treated alike; each has a draw of its own": lambda: nothing.expand(told.shape),
            "zeros stand for a dropped caption; the empty prompt has tokens too, in nothing": drop(items, 0 * nothing),
            "the share was kept and the rest dropped": drop(~items),
            "single tokens were dropped; a caption goes as a whole": drop(u(b, n)[:, :, None] < share),
            "single numbers were dropped; a caption goes as a whole": drop(u(b, n, d) < share),
            "only the first token was replaced; a prompt without words is a whole sequence": drop(items & first),
            "the first token was repeated; nothing is a whole sequence": drop(items, nothing[:1]),
            "the last token was repeated; nothing is a whole sequence": drop(items, nothing[-1:]),
            "the mean of the empty prompt was used; it is a whole sequence": drop(items, nothing.mean(0)),
            "what is kept was enlarged, as dropout does; a caption stays as it is":
                drop(items, keep=told / max(1 - share, 1e-9)),
            "captions of other items were put in; a dropped one becomes the empty prompt": drop(items, told.roll(1, 0)),
        }  # fmt: skip
        same_shape(f"the captions {where}", found, told.shape)
        recognised(f"the captions {where}", found, expected, slips)
        same_dtype(f"the captions {where}", found, dtype)
    return "whole captions, each by its own draw; the empty prompt's tokens in their place"


# --- 9.B, an average used too early


def decay_at(n, decay):
    """The decay of the average's update number n = 0, 1, 2, …: (1 + n) / (10 + n) at first, then `decay`."""
    return min(decay, (1 + n) / (10 + n))


@exercise("9.B", name="decay_at", solution=decay_at, minutes=8, difficulty=2, importance=4)
def check_decay_at(student):
    """Any rule that forgets the start and lets no single moment rule; it must end at the decay."""
    for decay in (0.9, 0.99, 0.999, 0.9999):
        rule = {n: _number(student, n, decay) for n in (*range(1000), 3000, 10**4, 10**5, 10**6)}
        late = _number(student, 10**7, decay)
        close(f"decay_at(10_000_000, {decay})", late, decay, 1e-9, "in the end the decay is what was asked for")
        for n, kept in rule.items():
            if not 0 <= kept <= decay + 1e-12:
                raise Failed(f"decay_at({n}, {decay}) from 0 to {decay}", f"{kept:.6g}")
        start = math.prod(rule[n] for n in range(300))
        if start > 0.01:
            cause = "it is decay from the first update on" if all(kept == decay for kept in rule.values()) else ""
            raise Failed(f"at most 1 % of the start in the average after 300 updates with decay {decay}", f"{start:.1%}",
                         cause)  # fmt: skip
        _no_moment_rules(rule, decay)
    return "the start is forgotten, no single moment rules, and in the end the decay is the one asked for"


def _no_moment_rules(rule, decay):
    """From update 300 on, no single one may make up more than 15 % of the average."""
    share, moment = 0.0, 0  # of the update that makes up most of it
    for n, kept in rule.items():
        share *= kept
        if 1 - kept > share:
            share, moment = 1 - kept, n
        if n >= 300 and share > 0.15:
            cause = ("the average begins late, and the moment at which it begins is what it keeps" if moment < n else
                     "the average is a copy of the newest weights for too long" if n == 300 else "")  # fmt: skip
            raise Failed(f"no single moment with more than 15 % of the average after {n + 1:,} updates with decay {decay}",
                         f"{share:.0%} of update {moment}", cause)


def _number(student, n, decay):
    found = student(n, decay)
    if not isinstance(found, (int, float)) or isinstance(found, bool):
        raise Failed(f"a number for decay_at({n}, {decay})", type(found).__name__)
    return float(found)
