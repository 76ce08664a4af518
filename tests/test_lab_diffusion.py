"""The checks of notebooks 05 to 09 fail answers that are right for one size, one batch, one value or one dtype only.

Each answer is the solution with one piece exchanged: {(exercise, the piece): what takes its place, …}.
"""

import inspect
import math

import pytest
import torch
from answers import assert_refused

from minit2v.diffusion import samplers
from minit2v.diffusion.process import Diffusion
from minit2v.lab.course import exercises
from minit2v.lab.course.checks import nb05, nb06
from minit2v.lab.course.comparing import normal
from minit2v.presets import DiffusionConfig

LEVEL, NOISED = "alpha_bar_t[:, None, None, None, None]", "a.sqrt() * x0 + (1 - a).sqrt() * noise"
PRODUCT, DRAWN = "torch.cumprod(1 - betas, 0)", "torch.randn(x0.shape, generator=generator)"
EACH = "torch.full((len(x0),), t)"
INTERPOLATED = "low + (table[low] - wanted) / (table[low] - table[high])"
ROOTS, BETA, SPREAD = "alpha_bar.sqrt(), (1 - alpha_bar).sqrt()", "beta = 1 - a / a_next", "** 0.5 * noise"
VARIANCE, LEVELS = "eta**2 * (1 - a_next) / (1 - a) * (1 - a / a_next)", "[*alpha_bar[timesteps].tolist(), 1.0]"
BLEND, TABLE = "return x if noise is None else x + variance**0.5 * noise", "variance = (1 - a[1:]) / (1 - a[:-1]) * beta"
PAIR, REST, UP = "torch.cat([x, skips.pop()], dim=1)", "emb, context, f)\n", "level.resample(x, skips[-1].shape[-2:])"
FOLDED, UNFOLDED = '"(b f) c h w -> b c f (h w)", f=f)', 'return x + rearrange(h, "'
WARMED = "min(decay, (1 + n) / (10 + n))"
NOISE = "(x - a**0.5 * guess) / (1 - a) ** 0.5"
SCHEDULE = "torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2"
WRONG = {
    ("5.1", LEVEL): ["alpha_bar_t.reshape(3, 1, 1, 1, 1)", "alpha_bar_t[:3, None, None, None, None]",
                     f"{LEVEL}.clamp(max=0.999)", f"{LEVEL}.clamp(min=1e-2)",
                     "torch.tensor([0.9, 0.5, 0.04], dtype=torch.float64)[:, None, None, None, None]"],
    ("5.1", NOISED): [f"({NOISED}).float()", f"({NOISED}).numpy()", f"({NOISED}).tolist()",
                      "a.float().sqrt() * x0.float() + (1 - a).float().sqrt() * noise.float()"],
    ("5.2", PRODUCT): [f"{PRODUCT}.float()", f"{PRODUCT}.double()", f"{PRODUCT}.half()", f"{PRODUCT}.clamp(min=0.004)",
                       "torch.cumprod(1 - betas, 0, dtype=torch.float64)", "torch.cumprod(1 - betas, 0)[:400]",
                       "torch.cumprod(1 - betas.bfloat16(), 0).to(betas.dtype)", "betas.neg_().add_(1).cumprod(0)",
                       "torch.tensor([0.9, 0.72, 0.36], dtype=betas.dtype)", f"torch.cumprod(1 - {SCHEDULE}, 0)",
                       "torch.cumprod(1 - betas.float(), 0)",
                       f"{PRODUCT}.tolist()", f"{PRODUCT}.numpy()",
                       f"torch.cumprod(1 - {SCHEDULE}, 0) if len(betas) > 3 else {PRODUCT}",
                       "torch.tensor([float(torch.prod(1 - betas[: t + 1])) for t in range(len(betas))])"],
    ("5.3", ".var()"): [".flatten(1).var(1)", ".var((0, 1, 3, 4))", ".var((0, 1, 3, 4)).mean()", ".var((0, 1, 2))",
                        ".var((0, 1, 2)).mean()", ".var((0, 1, 2, 3))", ".half().var()", ".clamp(-3, 3).var()",
                        ".var() * 0 + 1", ".var(dim=0).mean()", ".var(dim=(1, 2, 3, 4)).mean()", "[0].var()", "[:, 0].var()",
                        "[:, :, 0].var()",
                        "[..., 0].var()", ".var(dim=1).mean()", ".var(dim=2).mean()", ".var(unbiased=False) * 1.01",
                        ".var(dim=(0, 2, 3, 4)).mean()", ".var(dim=(2, 3, 4)).mean()"],
    ("5.3", DRAWN): ["torch.randn(x0.shape)", "torch.randn_like(x0)", f"{DRAWN}.sign()",
                     "torch.randn(x0.shape, generator=torch.Generator().manual_seed(t))",
                     "torch.randn(x0.shape[1:], generator=generator).expand(x0.shape)",
                     "torch.randn(x0.shape[1:], generator=generator)", "torch.randn(8, 4, 16, 16, 16, generator=generator)",
                     "torch.randn(*x0.shape[:2], 1, *x0.shape[3:], generator=generator).expand(x0.shape)",
                     "3**0.5 * (2 * torch.rand(x0.shape, generator=generator) - 1)",
                     "torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).roll(ts.index(t), 0)",
                     "torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)) * (-1) ** ts.index(t)"],
    ("5.3", "add_noise(x0,"): ["add_noise(x0 - x0.mean(),", "add_noise(x0.add_(0.5),",
                               "add_noise(x0[:1].expand(x0.shape),"],
    ("5.3", EACH): ["torch.full((8,), t)", "torch.full((len(x0),), max(t - 1, 0))",
                    "torch.full((len(x0),), min(t + 1, 999))"],
    ("5.3", "torch.stack(found)"): ["torch.stack(found[:4])", "found"],
    ("5.3", "found = []"): ["x0 += 1; found = []", "ts.sort(); found = []"],
    ("5.4", "/ shift**2)"): ["/ 4)", "/ shift)", "* shift**2)", "/ max(shift, 1) ** 2)", ")"],
    ("5.4", ".clamp(table[-1], table[0])"): ["", ".clamp(max=table[0])", ".clamp(min=table[-1])", ".clamp(-5, 5)",
                                             ".flatten().clamp(table[-1], table[0])", ".clamp(table[-1], table[0]).float()"],
    ("5.4", "snr.log()"): ["snr.log_()", "snr[:4].log()", "snr"],
    ("5.4", "len(table) - 1)"): ["999)", "len(table) - 2)", "len(table))"],
    ("5.4", "> 1:"): ["> 0:", "> 3:", ">= 1 or True:"],
    ("5.4", ">= wanted"): ["<= wanted"],
    ("5.4", "enough, middle, low), torch"): ["enough, middle + 1, low), torch", "enough, low, low), torch"],
    ("5.4", "table = (alpha_bar"): ["alpha_bar.sub_(1e-3); table = (alpha_bar", "table = (alpha_bar.float()"],
    ("5.4", INTERPOLATED): ["low", "high", "low + 0.5", f"({INTERPOLATED}).round()", f"({INTERPOLATED}).float()",
                            f"({INTERPOLATED}).double()", f"({INTERPOLATED}).clamp(0, 999)", f"({INTERPOLATED}).tolist()",
                            f"({INTERPOLATED}).numpy()", f"1 + {INTERPOLATED}", f"({INTERPOLATED}) / (len(table) - 1)",
                            "high - (table[low] - wanted) / (table[low] - table[high])"],
    ("5.4", "shift=1.0"): ["shift=2.0", "shift=None"],
    ("5.3", "in ts:"): ["in sorted(ts):", "in [0, 300, 600, 999]:", "in [ts.pop(0) for _ in list(ts)]:"],
    ("5.B", ROOTS): ["alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()",
                     "alpha_bar.sqrt()[:4], (1 - alpha_bar).sqrt()[:4]",
                     "alpha_bar.sqrt().tolist(), (1 - alpha_bar).sqrt().tolist()",
                     "torch.tensor([1.0, 0.75**0.5, 0.6, 0.0]), torch.tensor([0.0, 0.5, 0.8, 1.0])"],
    ("6.1", BETA): [f"x = x.clamp(-1, 1); {BETA}", f"x.add_(1); x = x - 1; {BETA}", f"x0.sub_(1); x0 = x0 + 1; {BETA}",
                    f"noise.mul_(2); noise = noise / 2; {BETA}"],
    ("6.1", "/ (1 - a) * x0"): ["/ (1 - a) * x0.float()"],
    ("6.1", SPREAD): [f"{SPREAD} * noise", f"{SPREAD}.abs()", f"{SPREAD}.clamp(-1, 1)", f"{SPREAD}.sign()",
                       f"{SPREAD}.mean()"],
    ("6.1", "return mean"): ["return mean.float()", "return x.copy_(mean)", "return x0.copy_(mean)",
                             "return mean + (0.01 * noise if a_next == 1 else 0)", "x.add_(a_next == 1)\n    return mean"],
    ("6.2", VARIANCE): [*(VARIANCE.replace("eta**2", one) for one in ("eta", "eta**0.5", "eta**3", "eta**4", "1", "(eta > 0)")),
                        VARIANCE.replace("eta**2", "(0.25 if 0 < eta < 1 else eta)"),
                        f"{VARIANCE} if eta in (0, 0.5, 1) else 0", VARIANCE.replace("eta", "(round(2 * eta) / 2)"),
                        VARIANCE.replace("eta**2", "(eta * 0.5 + (eta - 0.5) * (eta > 0.5))"),
                        f"0; a_next = min(a_next, 0.9999); variance = {VARIANCE}",
                        f"0; a = max(a, 0.01); variance = {VARIANCE}"],
    ("6.2", "a_next**0.5 * x0"): ["a_next**0.5 * x0.float()"],
    ("6.2", BLEND): [f"x = x.clamp(-4, 4); {BLEND}", f"x = x.float(); {BLEND}.float()",
                     BLEND.replace("x if", "x.float() if"),
                     f"{BLEND}.double()", BLEND.replace("noise is None", "eta == 0 or a == 0"),
                     BLEND.replace("is None", "is None or a < 0.1")],
    ("6.3", "T = len(alpha_bar)"): ["T = 1000", "T = len(alpha_bar); alpha_bar[0] = 1",
                                    "T = len(alpha_bar); alpha_bar[-1] = 0",
                                    "T = len(alpha_bar); x = (1 - alpha_bar[-1]).sqrt() * x",
                                    "T = 1000; x = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))",
                                    "T = len(alpha_bar); x.mul_(2); x = x / 2",
                                    "T = len(alpha_bar); steps = min(steps, 50)", "T = len(alpha_bar); steps = 12",
                                    "alpha_bar = Diffusion(DiffusionConfig(schedule='cosine')).alpha_bar; T = len(alpha_bar)",
                                    "alpha_bar = Diffusion(DiffusionConfig()).alpha_bar; T = len(alpha_bar)",
                                    "T = len(alpha_bar); x = torch.ones_like(x)",
                                    "T = len(alpha_bar); model = lambda x, t: (torch.tanh(x), x)"],
    ("6.3", "for i in range(steps)]"): ["for i in range(min(steps, 50))]", "* (steps != 7) for i in range(steps)]"],
    ("6.3", LEVELS): ["[*alpha_bar[timesteps].clamp(min=1e-3).tolist(), 1.0]"],
    ("6.3", "levels[i + 1])"): ["levels[i + 1]).float()", "levels[i + 1]).double()"],
    ("6.3", "model(x, t)"): ["model(x[:, :2], t)", "model(x.reshape(-1, 2), t)", "model(x.flatten(1), t)"],
    ("6.3", "return x"): ["return x[:6, :2]"],
    ("6.4", "T, last_x0, last_h = len(alpha_bar), None, None"): [
        "T, last_x0, last_h = 1000, None, None", "T, last_x0, last_h = len(alpha_bar), None, None; steps = 12",
        "T, last_x0, last_h = len(alpha_bar), None, None; x.mul_(2); x = x / 2",
        "T, last_x0, last_h = len(alpha_bar), None, None; alpha_bar[0] = 1"],
    ("6.4", "(x0 - last_x0)"): ["(x0 - last_x0).float()", "(x0 - last_x0).clamp(-0.1, 0.1)", "(last_x0 - x0)", "x0",
                                "last_x0"],
    ("6.4", "h / (2 * last_h)"): ["h / last_h", "0.5", "last_h / (2 * h)", "h / 2", "1 / (2 * last_h)",
                                  "h / (2 * (h + last_h))"],
    ("6.4", "a**0.5 * guess"): ["a**0.5 * x0", "a * guess", "a_next**0.5 * guess"],
    ("6.4", "/ (1 - a) ** 0.5, a, a_next"): ["/ (1 - a), a, a_next", "/ (1 - a_next + 1e-9) ** 0.5, a, a_next"],
    ("6.4", "ddim_step(guess"): ["ddim_step(x0", "ddim_step(last_x0"],
    ("6.4", "last_x0, last_h = x0, h"): ["last_x0, last_h = guess, h", "last_x0, last_h = last_x0 if i else x0, h",
                                         "last_x0, last_h = x0, last_h or h", "last_x0, last_h = x, h"],
    ("6.4", "if i > 0"): ["if i > 1", "if i >= 0 and last_h and i < steps - 2"],
    ("6.4", "*alpha_bar[timesteps].tolist(), 1.0"): ["*alpha_bar[timesteps].tolist(), alpha_bar[0].item()"],
    ("6.4", "x0, _ = model(x, t)"): ["x0, _ = model(x, t); model(x, t)", "x0 = model(x, T - 1)[0]", "x0 = model(x, t)[1]"],
    ("6.4", "return x"): ["return x.float()", "return x.double()", "return guess + 0 * x if i else x0 + 1e-3"],
    ("6.B", "beta = 1 - a[:-1] / a[1:]"): ["beta = (1 - a[:-1] / a[1:]).clamp(max=0.999)",
                                           "a.sub_(0.1); a = a + 0.1; beta = 1 - a[:-1] / a[1:]"],
    ("6.B", TABLE): [f"{TABLE}; variance[3:] = 0"],
    ("6.B", "variance.sqrt()"): ["variance.sqrt().half()",
                                 "torch.cat([variance.sqrt()[:3], torch.zeros(max(0, len(a) - 4))])"],
    ("7.1", "position.float()"): ["position.half()", "(position.float() % 1000)", "position"],
    ("7.1", "dim=-1)"): ["dim=-1).half().float()", "dim=-1)[..., :320]"],
    ("7.2", "GroupNorm(groups, c_out)"): ["GroupNorm(c_out // 2, c_out)"],
    ("7.2", "self.skip(x)"): ["self.skip(x.detach())"],
    ("7.2", "h = self.conv1("): ["x = x.detach(); h = self.conv1(", "emb = emb.detach(); h = self.conv1("],
    ("7.3", "x if context is None else context"): ["x.detach() if context is None else context",
                                                   "x if context is None else context.detach()"],
    ("7.3", "self.to_q(x)"): ["self.to_q(x.detach())"],
    ("7.B", PAIR): ["torch.cat([x.detach(), skips.pop()], dim=1)", "torch.cat([x, skips.pop().detach()], dim=1)",
                    "torch.cat([x, skips.pop().add_(1)], dim=1)", f"{PAIR}[:, :8]"],
    ("7.B", REST): ["emb, emb, f)\n", "emb, None, f)\n", "emb, x, f)\n", "emb, level, f)\n", "emb, context, f, False)\n",
                    "emb, context * 2, f)\n", "emb, context[:, :1], f)\n", "emb, context, 2)\n", "emb, context, len(x))\n"],
    ("7.B", "level.blocks:"): ["level.blocks[:2]:", "(level.blocks[0], level.blocks[1]):"],
    ("7.B", UP): ["level.resample(x, skips[0].shape[-2:])", "level.resample(x, (5, 6))", f"{UP}.detach()",
                  "level.resample(x.detach(), skips[-1].shape[-2:])"],
    ("8.1", "nn.Dropout(dropout)"): ["nn.Dropout(0.25 if dropout else 0.0)"],
    ("8.1", "self.dropout(h) if i"): ["self.dropout(h) if i and self.dropout.p > 0.3"],
    ("8.1", "blocks.zeroed(self.convs[-1])"): [f"blocks.zeroed(self.convs[-1]); {more}" for more in (
        "blocks.zeroed(self.norms[-1])", "[nn.init.zeros_(norm.weight) for norm in self.norms]",
        "[nn.init.ones_(conv.weight) for conv in self.convs[:3]]")],
    ("8.1", FOLDED): [f"{FOLDED}.float().to(x.dtype)", f"{FOLDED}.detach()"],
    ("8.1", UNFOLDED): [UNFOLDED.replace("x", "x.detach()", 1)],
    ("8.2", "GroupNorm(groups"): ["GroupNorm(2"],
    ("8.2", "TransformerBlock(inner, head_dim"): ["TransformerBlock(inner, 2 if inner == 10 else 3"],
    ("8.2", "blocks.zeroed(nn.Linear(inner, c))"): ["blocks.zeroed(nn.Linear(inner, c)); blocks.zeroed(self.norm)"],
    ("8.2", "rearrange(x, "): ["rearrange(x.detach(), ", "1e-9 * torch.arange(f)[:, None] + rearrange(x, "],
    ("8.2", UNFOLDED): [UNFOLDED.replace("x", "x.detach()", 1)],
    ("8.3", "4 * config.channels[0]"): ["16", "4 * c_in", "4 * min(config.channels)"],
    ("8.3", "SpatialTransformer(c_out, head_dim, config.context_dim, groups)"): [
        "SpatialTransformer(c_out, 4, config.context_dim, groups)", "SpatialTransformer(c_out, head_dim, 5, groups)",
        "SpatialTransformer(c_out, head_dim, config.context_dim, 2)"],
    ("8.3", "TemporalTransformer(c_out, head_dim, groups)"): ["TemporalTransformer(c_out, 4, groups)",
                                                              "TemporalTransformer(c_out, head_dim, 2)"],
    ("8.3", "if attention:"): ["if attention and not config.scale_shift:"],
    ("8.3", "self.res(x, emb)"): ["self.res(x, emb.detach())", "self.res(x.detach(), emb)"],
    ("8.3", "self.temporal_conv(x, f)"): ["self.temporal_conv(x, 3)"],
    ("8.3", "self.temporal(x, f)"): ["self.temporal(x, 3)"],
    ("8.B", "f=f)"): ["f=f)[..., :4]", "f=f).contiguous().view(-1, 5, f, 2, 4)"],
    ("9.1", "loss = "): ["network.eval(); loss = "],
    ("9.1", "loss.item()"): ["loss.detach().numpy()"],
    ("9.2", "mean.lerp_(now, 1 - decay)"): ["mean.copy_(decay * mean.float() + (1 - decay) * now.float())",
                                            "mean.lerp_(now, 1 - decay); now.requires_grad_(False)"],
    ("9.2", "mean.copy_(now)"): ["mean.data = now.data", "mean.set_(now)"],
    ("9.2", "with torch"): ["network.eval()\n    with torch"],
    ("9.3", "< share"): ["<= share - 1e-2"],
    ("9.3", "nothing, told)"): ["nothing, told)[:40]", "nothing, told) if len(told) > 1 else told"],
    ("9.B", WARMED): ["min(decay, n / 1000)", "decay * min(1, n / 1000)", f"{WARMED} if n != 500 else 0.0",
                      f"{WARMED} if n < 1000 else 0.0 if n < 10**7 else decay",
                      f"{WARMED} if n < 1000 else 0.5 if n < 10**7 else decay"],
}  # fmt: skip
CASES = [(number, right, wrong) for (number, right), others in WRONG.items() for wrong in others]


@pytest.mark.parametrize("number, right, wrong", CASES, ids=[f"{number} {wrong[:60]!r}" for number, _, wrong in CASES])
def test_wrong_answers_fail(number, right, wrong):
    one = exercises.get(number)
    code, names = inspect.getsource(one.solution), dict(vars(exercises.checks(number.partition(".")[0])))
    assert right in code
    exec(code.replace(right, wrong, 1), names)
    assert_refused(number, names[one.name])


def measured_as(measure):
    """5.3, with something else measured of each x_t."""
    return lambda add_noise, x0, ts, generator: torch.stack([
        measure(add_noise(x0, torch.randn(x0.shape, generator=generator), torch.full((len(x0),), t))) for t in ts])


def with_levels(mistake):
    """5.1, with one thing wrong."""
    return lambda x0, noise, alpha_bar_t: mistake(x0, noise, alpha_bar_t.reshape(-1, 1, 1, 1, 1))


def with_shift(mistake):
    """5.4, with one thing wrong."""
    return lambda alpha_bar, snr, shift=1.0: mistake(alpha_bar, snr, shift)


def with_factor(name, mistake):
    """5.B, with one of the factors wrong."""
    return lambda a: (mistake(a), (1 - a).sqrt()) if name == "signal" else (a.sqrt(), mistake(a))


NAMED = [(number, cause, answer(mistake)) for number, answer, mistakes in (
    ("5.1", with_levels, nb05.SAMPLE_MISTAKES), ("5.2", lambda mistake: mistake, nb05.LEFT_MISTAKES),
    ("5.3", measured_as, nb05.VARIANCE_MISTAKES), ("5.4", with_shift, nb05.TIMESTEP_MISTAKES),
) for cause, mistake in mistakes.items()]  # fmt: skip
NAMED += [("5.B", cause, with_factor(name, mistake)) for name, mistakes in nb05.LEVELS_MISTAKES.items()
          for cause, mistake in mistakes.items()]  # fmt: skip


@pytest.mark.parametrize("number, cause, answer", NAMED, ids=[f"{number} {cause[:60]}" for number, cause, _ in NAMED])
def test_a_mistake_that_is_known_is_named(number, cause, answer):
    assert_refused(number, answer)
    assert exercises.run(number, answer).message.endswith(f"Likely cause: {cause}")


FROM_ELSEWHERE = {
    "none was drawn from it. Likely cause: it came from torch's own generator":
        lambda add, x0, ts, generator: measured_as(torch.var)(add, x0, ts, None),
    "the same noise for every t":
        lambda add, x0, ts, generator: torch.stack([
            add(x0, torch.randn(x0.shape, generator=generator.manual_seed(0)), torch.full((len(x0),), t)).var() for t in ts]),
    "all of it lies between 0 and 1":
        lambda add, x0, ts, generator: torch.stack([
            add(x0, torch.rand(x0.shape, generator=generator), torch.full((len(x0),), t)).var() for t in ts]),
    "3 calls of add_noise, one for each t, found 0": lambda add, x0, ts, generator: torch.ones(len(ts)),
}  # fmt: skip


@pytest.mark.parametrize("said", FROM_ELSEWHERE)
def test_the_instrument_says_what_is_wrong_with_its_noise(said):
    assert said in exercises.run("5.3", FROM_ELSEWHERE[said]).message


def test_a_bisection_without_an_end_is_refused():
    def endless(alpha_bar, snr, shift=1.0):
        low, high = 0, len(alpha_bar) - 1
        while low < high:
            low = (low + high) // 2
        return torch.zeros_like(snr)

    assert_refused("5.4", endless)
    assert "a loop that has not ended" in exercises.run("5.4", endless).message


def test_predictions_of_notebook_05_are_true():
    a, b, c = (nb05.PREDICTIONS[f"5.{letter}"] for letter in "abc")
    half = int((Diffusion(DiffusionConfig()).alpha_bar < 0.5).nonzero()[0])
    assert a.answer == "about 350" and abs(half - 350) < 10
    assert b.answer() == nb05.mystery().spec.things[0].motion in b.choices
    size = 32 // 8
    assert c.answer == f"by {size**2}"  # the variance of the mean of size x size numbers


CAUSES = [  # exercise, a piece of its solution, what stands there instead, what the check must say of it
    ("6.1", SPREAD, " * noise", "multiplied by the variance"),
    ("6.1", "(beta * (1 - a_next) / (1 - a))", "beta", "the forward step's variance"),
    ("6.1", "(1 - beta) ** 0.5 * (1 - a_next)", "(1 - beta) * (1 - a_next)", "a root is missing in the weight of x"),
    ("6.1", "a_next**0.5 * beta", "a_next * beta", "a root is missing in the weight of x0"),
    ("6.1", "return mean", "x.copy_(mean)\n    return x", "operation in place"),
    ("6.2", "eta**2", "eta", "in proportion to eta"), ("6.2", "eta**2", "eta**0.5", "root of eta"),
    ("6.2", "eta**2", "eta**4", "fourth power of eta"), ("6.2", "eta**2 * ", "", "although eta is 0"),
    ("6.2", "eta**2", "(eta > 0)", "eta has no effect"),
    ("6.2", "1 - a_next - variance, 0", "1 - a_next, 0", "no room is made"),
    ("6.2", "a_next**0.5 * x0", "a**0.5 * x0", "where a_next belongs"),
    ("6.2", "variance**0.5 * noise", "variance * noise", "root"),
    ("6.3", ".tolist(), 1.0]", ".tolist(), alpha_bar[0].item()]", "ends at alpha_bar[0]"),
    ("6.3", "levels[i], levels[i + 1])", "levels[i], levels[i])", "stays at its own level"),
    ("6.3", "round(T - i * T / steps) - 1", "(steps - 1 - i) * (T // steps)", "counted from 0"),
    ("6.3", "round(T - i * T / steps) - 1", "int(T - i * T / steps) - 1", "cut off"),
    ("6.4", "h / (2 * last_h)", "h / last_h", "for the end of the step"),
    ("6.4", "h / (2 * last_h)", "0.5", "of one length, as they are along t; measure them along λ"),
    ("6.4", "_half_log_snr(a_next) - _half_log_snr(a)", "t - timesteps[i + 1]", "as they are along t; measure them along λ"),
    ("6.4", NOISE, "(x - a_next**0.5 * guess) / (1 - a_next) ** 0.5", nb06.EARLY),
    ("6.4", NOISE, "(x - a_next**0.5 * guess) / (1 - min(a_next, 1 - 1e-9)) ** 0.5", nb06.EARLY),
    ("6.2", "return x if noise is None else x", "return x", "None is no tensor: add the noise only if it is given"),
    ("5.4", ">= wanted", "> wanted", nb05.STRICT),
    ("5.4", "snr.log()", "(snr / shift**2).log()", "the shift has no effect: not used, or used on both sides"),
    ("6.4", "h / (2 * last_h)", "last_h / (2 * h)", "are exchanged"), ("6.4", "(x0 - last_x0)", "(last_x0 - x0)", "moved back"),
    ("6.4", "last_x0, last_h = x0", "last_x0, last_h = guess", "is the guess"),
    ("6.4", "guess = x0 + h", "guess = x0 + 0 * h", "it is DDIM"), ("6.4", "if i > 0", "if i > 1", "only the first has none"),
    ("6.4", ".tolist(), 1.0]", ".tolist(), alpha_bar[0].item()]", "ends at alpha_bar[0]"),
    ("6.4", "_half_log_snr(a_next) - _half_log_snr(a)", "a_next - a", "measured in alpha_bar"),
    ("6.4", "(x - a**0.5 * guess) / (1 - a) ** 0.5", "_", "belongs to the old x0"),
    ("6.B", "return variance.sqrt()", "variance[-1] = variance[-2]\n    return variance.sqrt()", "repeats the one before"),
    ("6.B", "variance.sqrt()", "variance", "standard deviation is the root"),
    ("6.B", "return variance.sqrt()", "return beta.sqrt()", "forward process"),
]  # fmt: skip


@pytest.mark.parametrize("number, right, wrong, cause", CAUSES, ids=[f"{one[0]} {one[2][:40]!r}" for one in CAUSES])
def test_a_wrong_answer_is_told_its_cause(number, right, wrong, cause):
    one = exercises.get(number)
    code, names = inspect.getsource(one.solution), dict(vars(exercises.checks(number.partition(".")[0])))
    assert right in code
    exec(code.replace(right, wrong, 1), names)
    assert_refused(number, names[one.name])
    assert cause in exercises.run(number, names[one.name]).message


@pytest.mark.parametrize("number, call", [
    ("6.3", lambda step: lambda model, x, alpha_bar, steps: step(*model(x, len(alpha_bar) - 1), 0.0, 1.0)),
    ("6.4", lambda step: lambda model, x, alpha_bar, steps: step(model(x, len(alpha_bar) - 1)[0], x, 0.0, 1.0)),
])  # fmt: skip
def test_a_sampler_around_a_stub_is_told_which_exercise_it_lacks(number, call):
    def ddim_step(*given):
        raise NotImplementedError("exercise 6.2: your code here")

    assert 'calls exercise 6.2, which is not written yet; lab.rescue("6.2")' in exercises.run(number, call(ddim_step)).message


def test_guesses_of_06_are_what_the_plane_does():
    """Two runs of DDPM agree for one point in six; the answers at pure noise lie on one spot, and real points are worse."""
    diffusion = Diffusion(DiffusionConfig(schedule="cosine", prediction="x0", spacing="trailing"))
    angle = torch.arange(6) * 2 * torch.pi / 6
    centres = 1.35 * torch.stack([angle.cos(), angle.sin()], 1).double()

    def oracle(x, t):
        a = diffusion.alpha_bar[t].item()
        variance = a * 0.25**2 + 1 - a
        middle = torch.softmax(-((x[:, None] - a**0.5 * centres) ** 2).sum(-1) / (2 * variance), 1) @ centres
        return middle + a**0.5 * 0.25**2 / variance * (x - a**0.5 * middle)

    noise = normal(2000, 2)
    assert oracle(noise, 999).norm(dim=1).max() < 0.01
    one, other = (centres[torch.arange(1200) % 6] + 0.25 * normal(1200, 2, seed=seed) for seed in (3, 4))
    other = other[torch.randperm(1200, generator=torch.Generator().manual_seed(0))]
    assert nb06.PREDICTIONS["6.a"].answer == "about twice as large"
    assert (one - other).square().sum(1).mean() / one.square().sum(1).mean() == pytest.approx(2, abs=0.2)
    ends = []
    for seed in (7, 8):
        *_, last = samplers.SAMPLERS["ddpm"](oracle, noise, diffusion, 50, generator=torch.Generator().manual_seed(seed))
        ends.append(torch.cdist(last.x, centres).argmin(1))
    same = (ends[0] == ends[1]).double().mean()
    assert nb06.PREDICTIONS["6.b"].answer == "about one in six" and abs(same - 1 / 6) < 0.04

    def end_of(sample, steps):
        return sample(lambda x, t: diffusion.to_x0_eps(oracle(x, t), x, t), noise, diffusion.alpha_bar, steps)

    exact = end_of(nb06.second_order_sample, 500)
    miss = {(sample, n): (end_of(sample, n) - exact).square().mean().sqrt()
            for sample in (nb06.ddim_sample, nb06.second_order_sample) for n in (32, 64)}  # fmt: skip
    assert nb06.PREDICTIONS["6.c"].answer == "about half as far"
    assert miss[nb06.ddim_sample, 32] / miss[nb06.ddim_sample, 64] == pytest.approx(2, abs=0.3)
    assert miss[nb06.second_order_sample, 32] / miss[nb06.second_order_sample, 64] > 3


def noised_one_by_one(x0, noise, alpha_bar_t):
    return torch.stack([a**0.5 * x + (1 - a) ** 0.5 * n for x, n, a in zip(x0, noise, alpha_bar_t)])


def left_by_a_loop(betas):
    left = [1 - betas[0]]
    for beta in betas[1:]:
        left.append(left[-1] * (1 - beta))
    return torch.stack(left)


def measured_by_hand(add_noise, x0, ts, generator):
    found = torch.empty(len(ts))
    for i, t in enumerate(ts):
        x = add_noise(x0, torch.randn(*x0.shape, generator=generator), torch.tensor([t] * x0.shape[0]))
        found[i] = (x - x.mean()).square().mean()
    return found


def posterior_by_precisions(x, x0, a, a_next, noise):
    """The product of two bells, by their precisions."""
    if a_next == 1:
        return x0.clone()
    beta = 1 - a / a_next
    variance = 1 / (a / a_next / beta + 1 / (1 - a_next))
    return variance * ((a / a_next) ** 0.5 / beta * x + a_next**0.5 / (1 - a_next) * x0) + variance**0.5 * noise


def step_by_sigma(x0, eps, a, a_next, eta=0.0, noise=None):
    sigma = eta * ((1 - a_next) / (1 - a)) ** 0.5 * (1 - a / a_next) ** 0.5
    x = x0 * a_next**0.5 + eps * (1 - a_next - sigma**2) ** 0.5
    return x + sigma * noise if eta else x


def sampled_with_a_list_of_pairs(model, x, alpha_bar, steps):
    T = alpha_bar.shape[0]
    times = [int((steps - i) * T / steps + 0.5) - 1 for i in range(steps)]
    for now, then in zip(times, [*times[1:], None]):
        x0, eps = model(x, now)
        x = nb06.ddim_step(x0, eps, float(alpha_bar[now]), 1.0 if then is None else float(alpha_bar[then]))
    return x


def second_order_by_the_librarys_formula(model, x, alpha_bar, steps):
    """The step as DPM-Solver++ writes it, with exp(-h), and no DDIM in it."""
    times, memory = [round(len(alpha_bar) * (1 - i / steps)) - 1 for i in range(steps)], []
    for i, now in enumerate(times):
        a, x0 = float(alpha_bar[now]), model(x, now)[0]
        if i == steps - 1:
            return x0
        b = float(alpha_bar[times[i + 1]])
        h = 0.5 * (torch.tensor(b, dtype=torch.float64).logit() - torch.tensor(a, dtype=torch.float64).logit()).item()
        guess = x0 if not memory else x0 + (x0 - memory[-1][0]) * h / memory[-1][1] / 2
        memory.append((x0, h))
        x = ((1 - b) / (1 - a)) ** 0.5 * x + b**0.5 * (1 - 2.718281828459045**-h) * guess


def table_as_a_list(a):
    return [float(((1 - b) / (1 - c) * (1 - c / b)) ** 0.5) for c, b in zip(a, a[1:])]


def sinusoid_by_exp(position, width):
    i = torch.arange(width // 2)
    angles = position.to(torch.float32).unsqueeze(-1) * torch.exp(-torch.log(torch.tensor(10000.0)) * i / (width // 2))
    return torch.cat((torch.cos(angles), torch.sin(angles)), -1)


def up_by_index(x, skips, level, emb, context, f):
    for i in range(len(level.blocks)):
        skip = skips[-1]
        del skips[-1]
        x = level.blocks[i](torch.concatenate((x, skip), 1), emb, context, f)
    if level.resample is not None:
        x = level.resample(x, tuple(skips[-1].shape[2:]))
    return x


def clips_by_unflatten(x, f):
    return x.unflatten(0, (-1, f)).transpose(1, 2)


def clips_by_slices(x, f):
    return torch.stack([x[i : i + f].transpose(0, 1) for i in range(0, len(x), f)])


def timestep_by_searching(alpha_bar, snr, shift=1.0):
    """As programs that sample have it, over the logarithm of sigma."""
    sigmas = ((1 - alpha_bar) / alpha_bar).sqrt().log() + torch.tensor(float(shift), dtype=snr.dtype).log()
    wanted = -0.5 * snr.log()
    high = torch.searchsorted(sigmas, wanted).clamp(1, len(sigmas) - 1)
    share = ((wanted - sigmas[high - 1]) / (sigmas[high] - sigmas[high - 1])).clamp(0, 1)
    return (1 - share) * (high - 1) + share * high


def timestep_one_by_one(alpha_bar, snr, shift=1.0):
    ratios = [float(a / (1 - a)) / shift**2 for a in alpha_bar]
    found = []
    for one in snr.flatten().tolist():
        if one >= ratios[0] or one <= ratios[-1]:
            found.append(0.0 if one >= ratios[0] else len(ratios) - 1.0)
            continue
        low, high = 0, len(ratios) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if ratios[middle] > one else (low, middle)
        found.append(low + math.log(ratios[low] / one) / math.log(ratios[low] / ratios[high]))
    return torch.tensor(found, dtype=alpha_bar.dtype).reshape(snr.shape)


RIGHT = [("5.4", timestep_by_searching), ("5.4", timestep_one_by_one),
         ("5.1", noised_one_by_one), ("5.1", lambda x0, noise, a: Diffused(a).add_noise(x0, noise)),
         ("5.2", left_by_a_loop), ("5.2", lambda betas: torch.log1p(-betas).cumsum(0).exp()), ("5.3", measured_by_hand),
         ("5.3", lambda add, x0, ts, generator: torch.tensor([
             add(x0, torch.randn(x0.shape, generator=generator), torch.full((len(x0),), t)).var(correction=0).item()
             for t in ts])),
         ("5.B", lambda a: (a**0.5, (1 - a) ** 0.5)), ("5.B", lambda a: [torch.sqrt(a), torch.sqrt(1 - a)]),
         ("6.1", posterior_by_precisions), ("6.1", lambda x, x0, a, a_next, noise: nb06.ddim_step(
             x0, (x - a**0.5 * x0) / (1 - a) ** 0.5, a, a_next, 1.0, noise)),
         ("6.2", step_by_sigma), ("6.3", sampled_with_a_list_of_pairs), ("6.B", table_as_a_list),
         ("6.4", second_order_by_the_librarys_formula),
         ("6.B", lambda a: ((1 - a[1:]) * (a[1:] - a[:-1]) / (1 - a[:-1]) / a[1:]).clamp(min=0) ** 0.5),
         ("7.1", sinusoid_by_exp), ("7.B", up_by_index), ("8.B", clips_by_unflatten), ("8.B", clips_by_slices)]  # fmt: skip


class Diffused:
    """The forward process at levels that are given."""

    def __init__(self, alpha_bar):
        self.signal, self.sigma = (one.reshape(-1, 1, 1, 1, 1) for one in nb05.levels(alpha_bar))

    def add_noise(self, x0, noise):
        return torch.addcmul(self.signal * x0, self.sigma, noise)


@pytest.mark.parametrize("number, answer", RIGHT, ids=[f"{number} {i}" for i, (number, _) in enumerate(RIGHT)])
def test_other_ways_to_write_it_pass(number, answer):
    outcome = exercises.run(number, answer)
    assert outcome.passed, outcome.message
