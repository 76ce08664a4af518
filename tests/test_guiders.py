"""Guiders combine two models; the straight way of flow matching and the circle of the library are one another's."""

import numpy as np
import pytest
import torch

import minit2v
from minit2v.diffusion import flow, guiders
from minit2v.diffusion.process import Diffusion
from minit2v.diffusion.samplers import SAMPLERS, guided, timesteps
from minit2v.errors import UserError
from minit2v.lab.course import guiding
from minit2v.presets import DiffusionConfig

CIRCLE = Diffusion(DiffusionConfig(prediction="v", zero_terminal_snr=True, spacing="trailing"))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def better(x, t):
    return torch.tanh(x) + t / 1000


def worse(x, t):
    return 0.3 * x.flip(-1) - t / 500


def test_guiders_combine_two_answers():
    x = normal(3, 4, 2, 5)
    b, w = better(x, 400), worse(x, 400)
    for scale in (0.0, 1.0, 2.5, -1.0):
        torch.testing.assert_close(guiders.extrapolated(better, worse, scale)(x, 400), (1 - scale) * w + scale * b)
    context, empty = normal(3, 5, 8, seed=1), normal(3, 5, 8, seed=2)
    unet = lambda x, t, text: x * (1 + text.mean((1, 2))[:, None, None, None]) + t[0] / 999  # noqa: E731
    one_call = guided(unet, context, empty, 4.0)(x, 300)
    two_calls = guiders.extrapolated(guided(unet, context), guided(unet, empty), 4.0)(x, 300)
    torch.testing.assert_close(one_call, two_calls)


def test_the_interval_is_one_of_noise():
    noise = 1 - CIRCLE.alpha_bar
    model = guiders.within(lambda x, t: "in", lambda x, t: "out", CIRCLE.alpha_bar, 0.2, 0.8)
    for t in (0, 100, 300, 500, 700, 999):
        assert model(None, t) == ("in" if 0.2 < noise[t] <= 0.8 else "out"), t
    assert {model(None, t) for t in range(1000)} == {"in", "out"}
    whole = guiders.within(lambda x, t: "in", lambda x, t: "out", CIRCLE.alpha_bar, 0.0, 1.0)
    assert {whole(None, t) for t in range(1000)} == {"in"}


def test_rescaled_answers_have_the_spread_of_the_better():
    x = normal(3, 4, 2, 5) * torch.tensor([1.0, 3.0, 0.2])[:, None, None, None]
    plain, strong = better(x, 9), guiders.extrapolated(better, worse, 5.0)(x, 9)
    whole, none, half = (guiders.rescaled(better, worse, 5.0, share)(x, 9) for share in (1.0, 0.0, 0.5))
    torch.testing.assert_close(whole.flatten(1).std(1), plain.flatten(1).std(1))
    torch.testing.assert_close(none, strong)
    torch.testing.assert_close(half, (whole + strong) / 2)


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
def test_a_velocity_gives_back_clip_and_noise(tau):
    x0, eps = normal(2, 3, 4), normal(2, 3, 4, seed=1)
    x = flow.straight(x0, eps, tau)
    for found, expected in zip(flow.split_velocity(flow.velocity(x0, eps), x, tau), (x0, eps)):
        torch.testing.assert_close(found, expected)
    step = (flow.straight(x0, eps, 0.6) - flow.straight(x0, eps, 0.5)) / 0.1
    torch.testing.assert_close(step, flow.velocity(x0, eps))


def test_the_straight_way_has_the_ratio_of_the_circle():
    tau = flow.tau_of(CIRCLE.alpha_bar)
    torch.testing.assert_close((1 - tau) ** 2 * (1 - CIRCLE.alpha_bar), tau**2 * CIRCLE.alpha_bar)
    assert tau[-1] == 1 and (tau.diff() > 0).all() and flow.length(0.0) == flow.length(1.0) == 1


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_euler_on_the_straight_way_is_ddim(prediction):
    """At the noise levels of a DDIM run, whatever the model."""
    process = Diffusion(DiffusionConfig(prediction=prediction, zero_terminal_snr=True, spacing="trailing", ends_clean=True))
    x, steps = normal(3, 4, 2, 5), 7
    *_, expected = SAMPLERS["ddim"](better, x, process, steps)
    taus = [*(flow.tau_of(process.alpha_bar[t]).item() for t in timesteps(process, steps)), 0.0]
    found = list(flow.euler(flow.as_flow(better, process), x * flow.length(taus[0]), taus))
    assert len(found) == steps
    torch.testing.assert_close(found[-1], expected.x)


def test_a_weakened_network_knows_the_same_less_well():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(50, 60), torch.nn.LayerNorm(60))
    before = [p.clone() for p in net.parameters()]
    weak, again = guiding.weakened(net, 0.1), guiding.weakened(net, 0.1)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before)), "the network itself is as it was"
    assert all(torch.equal(p, q) for p, q in zip(weak.parameters(), again.parameters()))
    change = (weak[0].weight - net[0].weight).std() / net[0].weight.std()
    assert 0.09 < change < 0.11 and torch.equal(weak[0].bias, net[0].bias) and torch.equal(weak[1].weight, net[1].weight)


def small_grid(**changes):
    """Two guiders, two scales, eight seeds, four kept clips of three frames."""
    rng = np.random.default_rng(0)
    figures = {name: rng.random((2, 2, 8)).astype(np.float32) for name in ("spread", "flicker")}
    clips = (rng.random((2, 2, 4, 3, 1, 1, 3)).repeat(16, 4).repeat(24, 5) * 255).astype(np.uint8)
    return guiding.GuiderGrid(**{"weights": "none", "guiders": ["one", "two"], "scales": [1.0, 3.0],
                                 "prompts": [*guiding.PROMPTS] * 2, "right": rng.random((2, 2, 8, 4)) < 0.7,
                                 "diversity": rng.random((2, 2)).astype(np.float32), "clips": clips} | figures | changes)


def test_a_grid_comes_back_from_its_file(tmp_path):
    grid = small_grid()
    again = guiding.GuiderGrid.load(grid.save(tmp_path / "grid.npz"))
    for name in ("weights", "guiders", "scales", "prompts"):
        assert getattr(again, name) == getattr(grid, name)
    for name in ("right", "diversity", "spread", "flicker"):
        np.testing.assert_array_equal(getattr(again, name), getattr(grid, name))
    assert abs(again.clips.astype(int) - grid.clips).mean() < 3 and again.clips.shape == grid.clips.shape
    assert again.fidelity[1][0].value == pytest.approx(100 * grid.right[1, 0].mean())
    assert again.fidelity[1][0].n == 8
    for changes in ({"right": grid.right[:1]}, {"clips": grid.clips[0]}, {"diversity": np.zeros(2)}):
        with pytest.raises(UserError, match="grid: expected"):
            small_grid(**changes)
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    for path in (tmp_path / "broken.npz", tmp_path / "none.npz"):
        with pytest.raises(UserError, match="expected a grid of guiders, found .* missing or damaged"):
            guiding.GuiderGrid.load(path)


def test_the_shipped_grid_is_of_the_shipped_weights_and_over_fifty_seeds():
    from minit2v.checkpoints.find import find_model, fingerprint

    grid = guiding.GuiderGrid.load()
    assert grid.weights == fingerprint(find_model("mini"))
    assert len(grid.prompts) >= 50 and len(grid.guiders) == 5 and grid.scales[0] == 1
    assert (grid.diversity[:, 0] == grid.diversity[0, 0]).all(), "with scale 1 all guiders are the model alone"
    assert (minit2v.files.data_dir() / "guiders.npz").stat().st_size < 300_000


def test_every_guider_is_the_model_alone_at_scale_1():
    pipe = minit2v.load("mini", device="cpu")
    prompts = list(guiding.PROMPTS[:2])
    x = normal(2, 4, 3, 4, 4).float()
    with torch.inference_mode():
        alone = guided(pipe.unet, pipe.text.encode(prompts))(x, 700)
        ways = guiding.ways_to_guide(pipe, prompts, [guiding.UNWANTED[one] for one in prompts], guiding.weakened(pipe.unet))
        assert len(ways) == 5
        for name, make in ways.items():
            torch.testing.assert_close(make(1.0)(x, 700), alone, rtol=1e-3, atol=1e-4)
        strong = {name: make(3.0)(x, 700) for name, make in ways.items()}
    different = [name for name, answer in strong.items() if not torch.allclose(answer, alone, atol=1e-3)]
    assert set(different) >= {"classifier-free", "negative prompt", "autoguidance", "rescaled"}


def test_figures_of_clips_are_those_of_their_prompts():
    from minit2v.datasets.moving_things import Spec, Thing
    from minit2v.datasets.moving_things.scenes import render

    looks = [("circle", "red", "large", "left"), ("ring", "blue", "small", "up"), ("square", "yellow", "large", "right"),
             ("star", "green", "large", "down")]  # the star is too large
    things = [Thing(*look, "slowly") for look in looks]
    places = np.full((8, 3), 0.5)
    clips = render([Spec((thing,)) for thing in things] * 2, places, 64, frames=16)
    found = guiding.measured(clips, [*guiding.PROMPTS] * 2, lambda clips: clips.mean((1, 2, 3)))
    assert found["right"].shape == (8, 4) and found["right"][[0, 1, 2]].all()
    assert found["right"][3].tolist() == [True, True, False, True]
    assert found["diversity"] == 0, "the clips of each prompt are twice the same"
    assert found["clips"].shape == (4, guiding.FRAMES, 64, 64, 3)
