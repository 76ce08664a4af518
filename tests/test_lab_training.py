"""The checks of notebook 09: right answers pass however they are written, wrong ones do not, and causes are the true ones."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_refused

from minit2v import lab
from minit2v.datasets.moving_things import MovingThings
from minit2v.diffusion.process import Diffusion
from minit2v.errors import UserError
from minit2v.lab.course import exercises, video_trainings
from minit2v.lab.course.checks import nb09
from minit2v.lab.widgets.base import png
from minit2v.presets import DiffusionConfig
from minit2v.recording.run import TrainingRun

ROOT = Path(__file__).parent.parent


def step_with(draw=None, shown=None, target=None, reduce=F.mse_loss, order="zbs", told=True, result=lambda loss: loss.item()):
    """The training step with one thing done otherwise."""
    draw = draw or (lambda d, x0, g: (torch.randint(len(d.alpha_bar), (len(x0),), generator=g),
                                      torch.randn(x0.shape, generator=g, dtype=x0.dtype)))  # fmt: skip
    shown = shown or (lambda d, x0, noise, t: d.add_noise(x0, noise, t))
    target = target or (lambda d, x0, noise, t: d.target(x0, noise, t))

    def step(network, optimizer, diffusion, x0, said, generator):
        t, noise = draw(diffusion, x0, generator)
        output = network(shown(diffusion, x0, noise, t), t, said if told else None)
        loss = reduce(output, target(diffusion, x0, noise, t).to(output.dtype))
        for letter in order:
            if letter == "z":
                optimizer.zero_grad()
            elif letter == "b":
                loss.backward()
            else:
                optimizer.step()
        return result(loss)

    return step


def times(low=0, below=0, many=None, T=None):
    def draw(d, x0, g):
        t = torch.randint(low, (T or len(d.alpha_bar)) + below, (many or len(x0),), generator=g)
        return t.expand(len(x0)), torch.randn(x0.shape, generator=g, dtype=x0.dtype)

    return draw


def noises(make):
    return lambda d, x0, g: (torch.randint(len(d.alpha_bar), (len(x0),), generator=g), make(x0, g))


def noise_first(d, x0, g):
    noise = torch.randn(x0.shape, generator=g, dtype=x0.dtype)
    return torch.randint(len(d.alpha_bar), (len(x0),), generator=g), noise


def normal_of(shape):
    return lambda x0, g: torch.randn(shape(x0), generator=g, dtype=x0.dtype).expand(x0.shape)


def twice_asked(network, optimizer, diffusion, x0, told, generator):
    network(x0, torch.zeros(len(x0), dtype=torch.long), told)
    return nb09.train_step(network, optimizer, diffusion, x0, told, generator)


def in_place(network, optimizer, diffusion, x0, told, generator):
    x0 *= 1.001
    return nb09.train_step(network, optimizer, diffusion, x0, told, generator)


def another_rate(network, optimizer, diffusion, x0, told, generator):
    optimizer.param_groups[0]["lr"] *= 1.5
    return nb09.train_step(network, optimizer, diffusion, x0, told, generator)


def clipped(network, optimizer, diffusion, x0, told, generator):
    t = torch.randint(len(diffusion.alpha_bar), (len(x0),), generator=generator)
    noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    loss = diffusion.loss(network(diffusion.add_noise(x0, noise, t), t, told), x0, noise, t)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 0.01)
    optimizer.step()
    return loss.item()


def weights_of(network, average, kept):
    with torch.no_grad():
        for mean, now in zip(average.parameters(), network.parameters()):
            mean.copy_(kept(mean, now))
        for mean, now in zip(average.buffers(), network.buffers()):
            mean.copy_(now)


def means(kept):
    return lambda average, network, decay: weights_of(network, average, lambda mean, now: kept(mean, now, decay))


def average_without_buffers(average, network, decay):
    with torch.no_grad():
        for mean, now in zip(average.parameters(), network.parameters()):
            mean.lerp_(now, 1 - decay)


def average_of_buffers_too(average, network, decay):
    average_without_buffers(average, network, decay)
    for mean, now in zip(average.buffers(), network.buffers()):
        mean.copy_((decay * mean + (1 - decay) * now).to(mean.dtype))


def average_of_what_learns(average, network, decay):
    nb09.ema_step(average, network, decay)
    network.requires_grad_(True)


def average_with_a_graph(average, network, decay):
    for (name, mean), now in zip(list(average.named_parameters()), network.parameters()):
        place, _, leaf = name.rpartition(".")
        module = average.get_submodule(place)
        value = decay * mean + (1 - decay) * now
        del module._parameters[leaf]
        setattr(module, leaf, torch.nn.Parameter(value))
    for mean, now in zip(average.buffers(), network.buffers()):
        mean.copy_(now)


def average_by_assignment(average, network, decay):
    for mean, now in zip(average.parameters(), network.parameters()):
        mean.data = now.data if decay == 0 else mean.data.lerp_(now.data, 1 - decay)
    for mean, now in zip(average.buffers(), network.buffers()):
        mean.copy_(now)


def average_in_new_memory(average, network, decay):
    for mean, now in zip(average.parameters(), network.parameters()):
        mean.data = decay * mean.data + (1 - decay) * now.data
    for mean, now in zip(average.buffers(), network.buffers()):
        mean.copy_(now)


def average_into_the_network(average, network, decay):
    nb09.ema_step(network, average, decay)


def only_the_first_weight(average, network, decay):
    with torch.no_grad():
        next(average.parameters()).lerp_(next(network.parameters()), 1 - decay)
        for mean, now in zip(average.buffers(), network.buffers()):
            mean.copy_(now)


def only_what_learns(average, network, decay):
    with torch.no_grad():
        for mean, now in zip(average.parameters(), network.parameters()):
            if mean.requires_grad:
                mean.lerp_(now, 1 - decay)
        for mean, now in zip(average.buffers(), network.buffers()):
            mean.copy_(now)


def frees(average, network, decay):
    nb09.ema_step(average, network, decay)
    average.requires_grad_(False)


def rolled(average, network, decay):
    nb09.ema_step(average, network, decay)
    with torch.no_grad():
        average.scale.add_(1e-4)


def dropped_by(choose, put=lambda told, nothing: nothing, size=lambda told: (len(told), 1, 1), keep=lambda told, share: told):
    def drop(told, nothing, share, generator):
        u = torch.rand(size(told), generator=generator)
        return torch.where(choose(u, share), put(told, nothing).to(told.dtype), keep(told, share))

    return drop


def drop_in_place(told, nothing, share, generator):
    told[torch.rand(len(told), generator=generator) < share] = nothing
    return told


def drop_whole_batch(told, nothing, share, generator):
    return nothing.expand(told.shape) if torch.rand((), generator=generator) < share else told


def below(u, share):
    return u < share


WRONG = {
    "9.1": {
        "one timestep": step_with(draw=times(many=1)),
        "noise first": step_with(draw=noise_first),
        "from 1": step_with(draw=times(low=1, below=1)),
        "the last one missing": step_with(draw=times(below=-1)),
        "T is 1000": step_with(draw=times(T=1000)),
        "T is 999": step_with(draw=times(T=999)),
        "its own generator": step_with(draw=lambda d, x0, g: (torch.randint(len(d.alpha_bar), (len(x0),)),
                                                              torch.randn_like(x0))),
        "noise of its own generator": step_with(draw=noises(lambda x0, g: torch.randn_like(x0))),
        "uniform noise": step_with(draw=noises(lambda x0, g: torch.rand(x0.shape, generator=g, dtype=x0.dtype))),
        "shared by the batch": step_with(draw=noises(normal_of(lambda x0: x0.shape[1:]))),
        "shared by the frames": step_with(draw=noises(normal_of(lambda x0: (*x0.shape[:2], 1, *x0.shape[3:])[: x0.ndim]))),
        "float32 noise": step_with(draw=noises(lambda x0, g: torch.randn(x0.shape, generator=g))),
        "t of shape (b, 1)": step_with(draw=lambda d, x0, g: (torch.randint(len(d.alpha_bar), (len(x0), 1), generator=g),
                                                              torch.randn(x0.shape, generator=g, dtype=x0.dtype))),
        "no noise": step_with(shown=lambda d, x0, noise, t: x0),
        "only noise": step_with(shown=lambda d, x0, noise, t: noise),
        "no factors": step_with(shown=lambda d, x0, noise, t: x0 + noise),
        "changed places": step_with(shown=lambda d, x0, noise, t: d.add_noise(noise, x0, t)),
        "one level": step_with(shown=lambda d, x0, noise, t: d.add_noise(x0, noise, t[:1].expand(len(t)))),
        "always the noise": step_with(target=lambda d, x0, noise, t: noise),
        "always the clip": step_with(target=lambda d, x0, noise, t: x0),
        "the noisy clip": step_with(target=lambda d, x0, noise, t: d.add_noise(x0, noise, t)),
        "minus the target": step_with(target=lambda d, x0, noise, t: -d.target(x0, noise, t)),
        "sum": step_with(reduce=lambda a, b: F.mse_loss(a, b, reduction="sum")),
        "L1": step_with(reduce=F.l1_loss),
        "root": step_with(reduce=lambda a, b: F.mse_loss(a, b).sqrt()),
        "huber": step_with(reduce=F.smooth_l1_loss),
        "half": step_with(reduce=lambda a, b: F.mse_loss(a, b) / 2),
        "no zero_grad": step_with(order="bs"),
        "no step": step_with(order="zb"),
        "no backward": step_with(order="zs"),
        "zero after backward": step_with(order="bzs"),
        "step before backward": step_with(order="zsb"),
        "two steps": step_with(order="zbss"),
        "captions forgotten": step_with(told=False),
        "a tensor": step_with(result=lambda loss: loss),
        "a detached tensor": step_with(result=lambda loss: loss.detach()),
        "nothing": step_with(result=lambda loss: None),
        "asked twice": twice_asked,
        "in place": in_place,
        "another rate": another_rate,
        "clipped": clipped,
    },
    "9.2": {
        "changed places": means(lambda mean, now, decay: (1 - decay) * mean + decay * now),
        "the newest": means(lambda mean, now, decay: now),
        "nothing": lambda average, network, decay: None,
        "no factor": means(lambda mean, now, decay: decay * mean + now),
        "no factor of the old": means(lambda mean, now, decay: mean + (1 - decay) * now),
        "one factor": means(lambda mean, now, decay: decay * (mean + now)),
        "the mean of both": means(lambda mean, now, decay: (mean + now) / 2),
        "a fixed decay": means(lambda mean, now, decay: 0.9 * mean + 0.1 * now),
        "squared": means(lambda mean, now, decay: decay**2 * mean + (1 - decay**2) * now),
        "no buffers": average_without_buffers,
        "averaged buffers": average_of_buffers_too,
        "a graph": average_with_a_graph,
        "assigned": average_by_assignment,
        "new memory": average_in_new_memory,
        "into the network": average_into_the_network,
        "the first weight": only_the_first_weight,
        "what learns": only_what_learns,
        "without gradients from then on": frees,
        "a little more": rolled,
        "a copy": lambda average, network, decay: nb09.ema_step(copy.deepcopy(average), network, decay),
    },
    "9.3": {
        "per batch": drop_whole_batch,
        "zeros": dropped_by(below, put=lambda told, nothing: torch.zeros_like(nothing)),
        "kept": dropped_by(lambda u, share: u >= share),
        "above": dropped_by(lambda u, share: u > 1 - share),
        "tokens": dropped_by(below, size=lambda told: (*told.shape[:2], 1)),
        "numbers": dropped_by(below, size=lambda told: told.shape),
        "one draw": dropped_by(below, size=lambda told: (1, 1, 1)),
        "first token": lambda told, nothing, *rest: torch.cat(
            [nb09.drop_captions(told[:, :1], nothing[:1], *rest), told[:, 1:]], 1),
        "first repeated": dropped_by(below, put=lambda told, nothing: nothing[:1]),
        "last repeated": dropped_by(below, put=lambda told, nothing: nothing[-1:]),
        "mean": dropped_by(below, put=lambda told, nothing: nothing.mean(0)),
        "enlarged": dropped_by(below, keep=lambda told, share: told / max(1 - share, 1e-3)),
        "others": dropped_by(below, put=lambda told, nothing: told.roll(1, 0)),
        "in place": drop_in_place,
        "half": dropped_by(lambda u, share: u < share / 2),
        "a tenth": dropped_by(lambda u, share: u < 0.1),
        "never": dropped_by(lambda u, share: u < -1),
        "always": dropped_by(lambda u, share: u < 2),
        "mixed": lambda told, nothing, share, generator: (1 - share) * told + share * nothing,
        "float32": lambda *given: nb09.drop_captions(*given).float(),
        "backwards": lambda *given: nb09.drop_captions(*given).flip(0),
        "None": lambda *given: None,
        "its own generator": lambda told, nothing, share, generator: nb09.drop_captions(told, nothing, share, None),
    },
    "9.B": {
        "from the first": lambda n, decay: decay,
        "a power": lambda n, decay: decay ** (n + 1),
        "the other share": lambda n, decay: min(1 - decay, (1 + n) / (10 + n)),
        "max": lambda n, decay: max(decay, (1 + n) / (10 + n)),
        "never the decay": lambda n, decay: (1 + n) / (10 + n),
        "late": lambda n, decay: 0.0 if n < 300 else decay,
        "very late": lambda n, decay: 0.0 if n < 2000 else decay,
        "too slow": lambda n, decay: min(decay, (1 + n) / (1e6 + n)),
        "a jump": lambda n, decay: decay if n > 10 else 0.5,
        "zero": lambda n, decay: 0.0,
        "negative": lambda n, decay: min(decay, (n - 1) / (10 + n)),
        "too fast": lambda n, decay: min(decay, 1 - 1 / (10 + n) ** 2),
        "linear over ten thousand": lambda n, decay: decay * (1 - 0.5 ** (n + 1)),
        "fixed": lambda n, decay: min(0.999, (1 + n) / (10 + n)),
        "above the decay": lambda n, decay: min(decay, (1 + n) / (10 + n)) + 1e-3,
        "a text": lambda n, decay: "0.9",
        "None": lambda n, decay: None,
    },
}  # fmt: skip
CASES = [(number, name) for number, ones in WRONG.items() for name in ones]


@pytest.mark.parametrize("number, name", CASES, ids=[f"{number} {name}" for number, name in CASES])
def test_wrong_answers_fail(number, name):
    assert_refused(number, WRONG[number][name])


CAUSES = {
    ("9.1", "one timestep"): "each item has its own",
    ("9.1", "noise first"): "draw t first",
    ("9.1", "always the noise"): "compared with the noise",
    ("9.1", "sum"): "their mean",
    ("9.1", "no zero_grad"): "set to zero",
    ("9.1", "no step"): "backward, then optimizer.step()",
    ("9.1", "no backward"): "backward, then optimizer.step()",
    ("9.1", "zero after backward"): "stands between backward and step",
    ("9.1", "its own generator"): "generator=generator",
    ("9.1", "noise of its own generator"): "generator=generator",
    ("9.1", "float32 noise"): "dtype=x0.dtype",
    ("9.1", "in place"): "in place",
    ("9.2", "changed places"): "changed places",
    ("9.2", "no buffers"): "buffers are copied",
    ("9.2", "assigned"): "the network's memory",
    ("9.2", "new memory"): "mean.data = …",
    ("9.3", "zeros"): "the empty prompt has tokens too",
    ("9.3", "tokens"): "single tokens",
    ("9.3", "first token"): "only the first token",
    ("9.B", "from the first"): "decay from the first update on",
    ("9.B", "late"): "begins late",
}


@pytest.mark.parametrize("number, name", CAUSES, ids=lambda one: one)
def test_a_cause_is_named(number, name):
    assert CAUSES[number, name] in exercises.run(number, WRONG[number][name]).message.partition("found")[2]


def step_in_another_order(network, optimizer, diffusion, x0, told, generator):
    """Gradients set to zero after the step, and the library's own noise and loss."""
    t = torch.randint(0, diffusion.config.timesteps, (x0.shape[0],), generator=generator)
    noise = torch.randn(*x0.shape, generator=generator).to(x0) if x0.dtype == torch.float32 else torch.randn(
        x0.shape, generator=generator, dtype=x0.dtype)  # fmt: skip
    output = network(diffusion.add_noise(x0, noise, t), t, told)
    loss = F.mse_loss(output, diffusion.target(x0, noise, t))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def average_by_state(average, network, decay):
    new, old = network.state_dict(), average.state_dict()
    learnt = dict(network.named_parameters())
    average.load_state_dict({name: decay * old[name] + (1 - decay) * new[name] if name in learnt else new[name]
                             for name in old})  # fmt: skip


def drop_a_copy(told, nothing, share, generator):
    told = told.clone()
    for i, u in enumerate(torch.rand(len(told), generator=generator)):
        if u < share:
            told[i] = nothing
    return told


@pytest.mark.parametrize("number, answer", [
    ("9.1", step_in_another_order), ("9.2", average_by_state), ("9.3", drop_a_copy),
    ("9.B", lambda n, decay: min(decay, n / (n + 1))), ("9.B", lambda n, decay: min(decay, (n + 1) / (n + 5))),
], ids=lambda one: getattr(one, "__name__", one))  # fmt: skip
def test_other_right_answers_pass(number, answer):
    outcome = exercises.run(number, answer)
    assert outcome.passed, outcome.message


# --- what the notebook shows

def test_a_small_network_reaches_the_oracle_of_the_ring_within_5_percent():
    """The notebook's own cells, in default mode, with the checks' step."""
    source = (ROOT / "notebooks/src/09_training_text_to_video.py").read_text()
    cells = [cell for cell in source.split("# %%") if any(name in cell for name in
             ("CENTRES, SPREAD =", "class Small", "def train_small"))]  # fmt: skip
    session = type("Session", (), {"generator": staticmethod(lambda seed=0: torch.Generator().manual_seed(seed))})
    world = Diffusion(DiffusionConfig(schedule="cosine", prediction="v", spacing="trailing"))
    names = {"torch": torch, "math": math, "ctx": session, "worlds": {"v": world},
             "lab": type("Lab", (), {"yours": staticmethod(lambda number: exercises.get(number).solution)})}  # fmt: skip
    for cell in cells:
        exec(cell.partition("\n")[2], names)
    network = names["train_small"](world, 1000)
    points = names["draw"](40_000, session.generator(99))
    t = torch.randint(1000, (len(points),), generator=session.generator(98))
    noise = torch.randn(points.shape, generator=session.generator(97))
    noisy = world.add_noise(points, noise, t)
    with torch.no_grad():
        reached = world.loss(network(noisy, t), points, noise, t)
    best = world.loss(names["oracle"](noisy, t, world), points, noise, t)
    assert best < reached < 1.05 * best


class Shown:
    """What is displayed, and what takes its place."""

    def __init__(self, monkeypatch):
        self.now = []
        monkeypatch.setattr("IPython.display.display", self.display)

    def display(self, thing, display_id):
        self.now.append(thing)
        place = len(self.now) - 1
        return type("Handle", (), {"update": lambda _, other: self.now.__setitem__(place, other)})()


def test_a_live_bar_tells_the_time_left_and_shows_one_picture(monkeypatch):
    shown, seconds = Shown(monkeypatch), iter([0.0, 2.0, 2.1, 6.0, 400.0])
    live = lab.Live(4, clock=lambda: next(seconds))
    assert repr(shown.now[0]) == "step 0 of 4"
    live("loss 0.51")
    assert repr(shown.now[0]) == "step 1 of 4 · loss 0.51 · 6 s left"
    live("loss 0.50")
    assert "step 1" in repr(shown.now[0]), "not more often than four times a second"
    live.show("a picture")
    live("loss <0.4>")
    live.show("another")
    assert "loss &lt;0.4&gt;" in shown.now[0]._repr_html_() and 'value="3" max="4"' in shown.now[0]._repr_html_()
    live()
    assert [repr(one) for one in shown.now] == ["step 4 of 4 · 7 min in all", "'another'", ""]
    live.show(lab.matrix(np.eye(2), alt="a diagonal"))
    assert repr(shown.now[1]) == "a diagonal" and "<p>a diagonal</p>" in shown.now[2]._repr_mimebundle_()["text/html"]
    live.show("words alone")
    assert repr(shown.now[1]) == "'words alone'" and shown.now[2]._repr_mimebundle_() == {"text/plain": ""}
    with pytest.raises(UserError, match="Live: expected one step or more, found 0"):
        lab.Live(0)


def test_a_live_bar_outside_of_a_notebook_is_text(capsys):
    live = lab.Live(2)
    live()
    live()
    assert capsys.readouterr().out.startswith("step 0 of 2")


# --- the recorded trainings

def test_the_shipped_trainings_are_whole():
    for variant in video_trainings.VARIANTS:
        run = TrainingRun.load(f"nano-video-{variant.replace(' ', '-')}")
        steps = list(range(0, video_trainings.STEPS + 1, video_trainings.EVERY))
        assert run.name == variant and run.steps.tolist() == steps
        assert run.frames.shape == (len(video_trainings.SHOWN), 32, 32 * video_trainings.FRAMES, 3)
        assert ("image loss" in run.curves) == (variant == "with pictures")
        for name in ("shape", "colour", "size", "motion", "speed"):
            assert run.curves[f"wrong {name} t=0.8"][1].shape == run.steps.shape
    for (split, i), frames in zip(video_trainings.SHOWN, run.frames):
        made = video_trainings.side_by_side(MovingThings(split, size=32)[i].frames)
        assert abs(made.astype(int) - frames).mean() < 3, "as far as WebP keeps them"


def test_the_verdicts_are_of_both_trainings():
    judged = video_trainings.judged_clips()
    assert set(judged) == set(video_trainings.VARIANTS)
    sizes = {variant: {split: len(found) for split, found in splits.items()} for variant, splits in judged.items()}
    assert len(set(map(json.dumps, sizes.values()))) == 1 and min(min(one.values()) for one in sizes.values()) >= 32
    assert all({"shape", "colour", "motion", "all"} <= set(one) for splits in judged.values() for found in splits.values()
               for one in found)  # fmt: skip


def test_a_wrong_new_look_is_another_new_look():
    assert all(video_trainings.NEW[other] == one for one, other in video_trainings.NEW.items())


def test_a_replay_of_strips_shows_few_steps_side_by_side():
    run = TrainingRun.load("nano-video-with-pictures")
    widget = lab.RunReplay(run, name="replay-strips", curve="clip loss")
    picture = widget.picture()
    assert picture.shape[1] < 1300 and np.ptp(picture) > 200 and len(png(picture)) < 300_000


def test_recorded_refuses_an_unknown_variant(tmp_path):
    with pytest.raises(UserError, match="expected one of with pictures, without pictures, found 'both'"):
        video_trainings.recorded("both", tmp_path)
