"""The autoencoder: equal to diffusers' AutoencoderKL, both bottlenecks, and its training losses."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minit2v.datasets import Batch
from minit2v.errors import UserError
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.bottleneck import Codebook, Gaussian, perplexity
from minit2v.presets import AutoencoderConfig, ModelScopePreset
from minit2v.training.autoencoder import (
    AutoencoderTask,
    AutoencoderTraining,
    pixel_weights,
    pyramid_loss,
    readout_loss,
)

TINY = {"channels": 8, "multipliers": (1, 2, 3), "layers_per_level": 1, "norm_groups": 4, "codes": 16}

NAMES = [  # ours -> diffusers, applied in this order
    (r"\.out\.", ".to_out.0."),
    (r"\.(q|k|v)\.", r".to_\1."),
    (r"norm_out", "conv_norm_out"),
    (r"shortcut", "conv_shortcut"),
    (r"middle\.0", "mid_block.resnets.0"),
    (r"middle\.2", "mid_block.resnets.1"),
    (r"middle\.1\.norm", "mid_block.attentions.0.group_norm"),
    (r"middle\.1", "mid_block.attentions.0"),
    (r"encoder\.levels\.(\d+)\.resample\.1", r"encoder.down_blocks.\1.downsamplers.0.conv"),
    (r"decoder\.levels\.(\d+)\.resample\.1", r"decoder.up_blocks.\1.upsamplers.0.conv"),
    (r"encoder\.levels", "encoder.down_blocks"),
    (r"decoder\.levels", "decoder.up_blocks"),
    (r"\.blocks\.", ".resnets."),
]


def to_diffusers(name):
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


@pytest.mark.parametrize("mid_attention", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
def test_equal_to_diffusers(mid_attention, layers):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    config = AutoencoderConfig(**{**TINY, "layers_per_level": layers, "mid_attention": mid_attention})
    ours = VQGAN(config).double().eval()
    theirs = AutoencoderKL(
        block_out_channels=(8, 16, 24), layers_per_block=layers, norm_num_groups=4, latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
        mid_block_add_attention=mid_attention,
    ).double().eval()  # fmt: skip
    with torch.no_grad():
        for p in theirs.parameters():  # default values would hide a swapped norm or a missing bias
            p.copy_(torch.randn_like(p) * 0.3)
    source = theirs.state_dict()
    assert sorted(to_diffusers(name) for name in ours.state_dict()) == sorted(source)
    ours.load_state_dict({name: source[to_diffusers(name)] for name in ours.state_dict()})

    frames = torch.rand(2, 3, 24, 32, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        latents, posterior = ours.encode(frames), theirs.encode(frames).latent_dist
        assert latents.shape == (2, 4, 6, 8)
        torch.testing.assert_close(latents, posterior.mean, rtol=0, atol=1e-8)
        torch.testing.assert_close(ours.decode(latents), theirs.decode(latents).sample, rtol=0, atol=1e-8)
        kl = ours.bottleneck.kl(ours.features(frames)).sum(dim=(1, 2, 3))
        torch.testing.assert_close(kl, posterior.kl(), rtol=1e-10, atol=0)


def test_released_size():
    with torch.device("meta"):
        model = VQGAN(AutoencoderConfig())
    assert sum(p.numel() for p in model.parameters()) == 83_653_863
    assert model.encode(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 4, 8, 8)


def test_bad_shapes_are_refused():
    model = VQGAN(AutoencoderConfig(**TINY))
    with pytest.raises(UserError, match="multiples of 4"):
        model.encode(torch.zeros(1, 3, 18, 16))
    with pytest.raises(UserError, match="expected latents"):
        model.decode(torch.zeros(1, 3, 4, 4))
    with pytest.raises(UserError, match="bottleneck"):
        VQGAN(AutoencoderConfig(**TINY, bottleneck="none"))


def test_gaussian():
    gaussian = Gaussian()
    standard = torch.zeros(2, 8, 3, 3)  # mean 0, log-variance 0
    assert gaussian.kl(standard).abs().max() == 0
    moments = torch.cat([torch.full((1, 4, 100, 100), 3.0), torch.full((1, 4, 100, 100), -2.0)], dim=1)
    sample = gaussian.sample(moments, torch.Generator().manual_seed(0))
    assert sample.mean().item() == pytest.approx(3.0, abs=0.02)
    assert sample.std().item() == pytest.approx(np.exp(-1.0), abs=0.01)
    torch.testing.assert_close(sample, gaussian.sample(moments, torch.Generator().manual_seed(0)))
    # the oracle: torch's own divergence between normal distributions
    normal = torch.distributions.Normal(moments[:, :4], (0.5 * moments[:, 4:]).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(gaussian.kl(moments), expected)
    wild = gaussian.split(torch.full((1, 8, 1, 1), 1e4))[1]
    assert wild.max() == 20 and gaussian.split(-torch.full((1, 8, 1, 1), 1e4))[1].min() == -30


def test_codebook_takes_the_nearest_code_and_passes_the_gradient_through():
    torch.manual_seed(0)
    codebook = Codebook(codes=32, channels=4).eval()
    features = torch.randn(2, 4, 5, 6, requires_grad=True)
    latents, loss, _ = codebook(features)
    vectors = features.detach().permute(0, 2, 3, 1).reshape(-1, 4)
    expected = codebook.codes[torch.cdist(vectors, codebook.codes).argmin(dim=1)]
    torch.testing.assert_close(latents.detach().permute(0, 2, 3, 1).reshape(-1, 4), expected)
    torch.testing.assert_close(codebook.quantize(latents), latents)  # a code is its own nearest code
    upstream = torch.randn_like(latents)
    (gradient,) = torch.autograd.grad((latents * upstream).sum(), features, retain_graph=True)
    torch.testing.assert_close(gradient, upstream)  # identity
    assert torch.autograd.grad(loss, features)[0].abs().sum() > 0


def test_a_thrifty_codebook_prefers_codes_that_are_used_often():
    """The least squared distance minus thrift times the logarithm of the usage; what has become a code stays that code."""
    torch.manual_seed(0)
    codebook, plain = Codebook(codes=32, channels=4, thrift=0.7).eval(), Codebook(codes=32, channels=4).eval()
    plain.codes.copy_(codebook.codes)
    codebook.usage.copy_(torch.rand(32).pow(6)).div_(codebook.usage.sum())
    features = torch.randn(2, 4, 15, 16)
    vectors = features.permute(0, 2, 3, 1).reshape(-1, 4)
    costs = torch.cdist(vectors, codebook.codes) ** 2 - 0.7 * codebook.usage.clamp(min=1e-6).log()
    assert torch.equal(codebook.chosen(vectors), costs.argmin(dim=1))
    taken = codebook.mode(features)
    assert torch.equal(codebook.quantize(taken), taken) and torch.equal(plain.mode(features), plain.quantize(features))
    assert len(codebook.chosen(vectors).unique()) < len(plain.chosen(vectors).unique())


def test_codebook_follows_its_vectors_and_restarts_dead_codes():
    torch.manual_seed(0)
    codebook = Codebook(codes=4, channels=2)
    centres = torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, -5.0]])

    def batch():
        vectors = centres.repeat(16, 1) + 0.1 * torch.randn(64, 2)
        return vectors.reshape(1, 8, 8, 2).permute(0, 3, 1, 2)

    for _ in range(30):
        codebook(batch())
    assert codebook.quantize(batch()).sub(batch()).abs().max() < 1.0  # every cluster has a code
    codebook.codes[2] = codebook.sums[2] = 1e3  # far from everything, and long unused
    codebook.usage[2] = 0.0
    codebook(batch())
    assert codebook.codes[2].abs().max() < 6.0  # moved onto a vector of the batch
    before = codebook.codes.clone()
    codebook.eval()(batch())
    torch.testing.assert_close(codebook.codes, before)  # fixed outside training


def test_perplexity_counts_the_codes_in_use():
    assert perplexity(torch.full((64,), 1 / 64)).item() == pytest.approx(64.0, rel=1e-5)
    assert perplexity(torch.eye(64)[0]).item() == 1.0
    codebook = Codebook(codes=16, channels=2).eval()
    uniform = codebook.codes.reshape(1, 4, 4, 2).permute(0, 3, 1, 2)  # each code once
    report = codebook(uniform)[2]
    assert report["usage"] == 1.0 and report["perplexity"] == pytest.approx(16.0, rel=1e-5)


class Squares:
    """A data set: one light square on a dark background, in clips of `frames` frames."""

    name, test_splits = "squares", ()

    def __init__(self, frames=4):
        self.frames = frames

    def open(self, split, frames, height, width, images=False):
        return Squares(1 if images else self.frames)

    def __len__(self):
        return 100

    def batch(self, indices):
        clips = np.full((len(indices), self.frames, 16, 16, 3), 20, dtype=np.uint8)
        for clip, index in zip(clips, indices):
            clip[:, index % 10 : index % 10 + 6, index // 10 : index // 10 + 6] = (200, 50 + index, 30)
        return Batch(clips, [""] * len(indices))


def make_task(bottleneck="gaussian", **settings):
    torch.manual_seed(0)
    preset = ModelScopePreset("tiny", autoencoder=AutoencoderConfig(**TINY, bottleneck=bottleneck), height=16, width=16)
    config = {"discriminator_width": 4, "share_images": 0.7, "hinge": 0.1, "bottleneck": 1e-4} | settings
    return AutoencoderTask(preset, AutoencoderTraining(**config), Squares())


def test_a_batch_is_a_function_of_the_generator():
    task = make_task()
    one, two, other = (task.draw(torch.Generator().manual_seed(s), 9) for s in (1, 1, 2))
    assert one["frames"].shape == (9, 3, 16, 16) and one["noise"].shape == (9, 4, 4, 4)
    assert -1 <= one["frames"].min() and one["frames"].max() <= 1
    assert torch.equal(one["frames"], two["frames"]) and torch.equal(one["noise"], two["noise"])
    assert not torch.equal(one["frames"], other["frames"])


def test_windows_come_first_and_show_a_thing():
    task = make_task(crop=8, crop_until=0.5)
    for progress, shape in [(0.4, (8, 3, 8, 8)), (0.6, (2, 3, 16, 16))]:  # the same number of pixels
        task.progress = progress
        batch = task.draw(torch.Generator().manual_seed(0), 2)
        assert batch["frames"].shape == shape
        assert task.autoencoder.encode(batch["frames"]).shape == batch["noise"].shape
        assert (batch["frames"].amax(dim=(1, 2, 3)) > 0.5).all()  # the background is dark


def test_the_read_out_is_right_for_latents_that_are_the_colours():
    """Zero where the latents are the mean colours of their patches; the squared distance where they are not."""
    frames = make_task().draw(torch.Generator().manual_seed(0), 4)["frames"]
    colours, weights = F.avg_pool2d(frames, 4), torch.ones(4, 1, 16, 16)
    assert readout_loss(colours, frames, weights) == 0
    torch.testing.assert_close(readout_loss(colours + 0.5, frames, weights), torch.tensor(0.25))
    halves = torch.cat([torch.full((4, 1, 16, 8), 2.0), torch.zeros(4, 1, 16, 8)], dim=3)
    right = torch.arange(4) >= 2  # an error there weighs nothing
    torch.testing.assert_close(readout_loss(colours + 0.5 * right, frames, halves), torch.tensor(0.0))


def test_the_read_out_and_the_disturbance_reach_the_encoder():
    """The read-out alone teaches it; of the disturbance each picture gets its own share, 0 to the setting."""
    task = make_task(readout=1.0, latent_noise=0.1, pyramid=0.0)
    batch = task.draw(torch.Generator().manual_seed(0), 64)
    shares = batch["disturbance"].std((1, 2, 3))
    assert shares.max() < 0.15 and shares.min() < 0.03 and abs(shares.mean() - 0.05) < 0.02
    loss, report = task(batch)
    still, _ = task(batch | {"disturbance": torch.zeros_like(batch["disturbance"])})
    assert report["readout"] > 0 and loss != still
    loss.backward()
    assert task.readout.weight.grad.abs().sum() > 0 and task.autoencoder.encoder.conv_in.weight.grad.abs().sum() > 0


def test_each_loss_reaches_its_own_network_only():
    task = make_task()
    frames = task.draw(torch.Generator().manual_seed(0), 4)["frames"]
    networks = {"autoencoder": task.autoencoder, "discriminator": task.discriminator}

    def reached(loss):
        task.zero_grad(set_to_none=True)
        loss.backward()
        return {
            name for name, network in networks.items()
            if any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
        }  # fmt: skip

    assert reached(task.adversarial(task.autoencoder(frames)[0])) == {"autoencoder"}
    assert reached(task.hinge(frames, task.autoencoder(frames)[0])) == {"discriminator"}


def test_the_discriminator_starts_late_and_its_gradients_are_never_missing():
    task = make_task()
    batch = task.draw(torch.Generator().manual_seed(0), 4)
    for progress, starts in [(0.69, False), (0.71, True)]:
        task.progress = progress
        task.zero_grad(set_to_none=True)
        loss, report = task(batch)
        loss.backward()
        gradients = [p.grad for p in task.discriminator.parameters()]
        assert all(g is not None for g in gradients)  # distributed training waits for each
        assert any(g.abs().sum() > 0 for g in gradients) == starts == ("hinge" in report)


def test_pixel_weights_favour_things_and_average_to_one():
    frames = torch.from_numpy(Squares(1).batch([33])[0][:, 0]).permute(0, 3, 1, 2) / 127.5 - 1.0
    weights = pixel_weights(frames, extra=8.0)
    assert weights.mean().item() == pytest.approx(1.0, abs=1e-6)
    assert weights[0, 0, 6, 6] > 5 * weights[0, 0, 15, 15]
    assert pixel_weights(torch.zeros(1, 3, 8, 8), 8.0).unique().tolist() == [1.0]  # nothing there


def test_pyramid_loss_counts_a_lost_edge_more_than_a_shifted_colour():
    image = torch.from_numpy(Squares(1).batch([33])[0][:, 0]).permute(0, 3, 1, 2) / 127.5 - 1.0
    blurred = torch.nn.functional.avg_pool2d(image, 5, stride=1, padding=2, count_include_pad=False)
    shifted = image + (blurred - image).abs().mean()  # the same L1 distance
    assert pyramid_loss(image, image, 3) == 0
    assert pyramid_loss(image, blurred, 3) > 1.5 * pyramid_loss(image, shifted, 3)


@pytest.mark.parametrize("bottleneck", ["gaussian", "codebook"])
def test_training_reduces_the_loss(bottleneck):
    task = make_task(bottleneck)
    batch = task.draw(torch.Generator().manual_seed(0), 8)
    optimiser = torch.optim.AdamW(task.parameters(), lr=4e-3)
    losses = []
    for step in range(40):
        task.progress = step / 40  # the discriminator takes part in the last 12 steps
        loss, report = task(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(report["l1"])
    assert losses[-1] < 0.5 * losses[0]
    assert np.isfinite(losses).all()
    task.eval()
    assert task.picture(n=3).shape == (32, 48, 3) and task.picture(n=3).dtype == np.uint8
    scale = task.normalise()
    frames = task.draw_frames(torch.Generator().manual_seed(5), 64)
    with torch.no_grad():
        assert (scale * task.autoencoder.encode(frames)).std().item() == pytest.approx(1.0, rel=0.2)


def test_commitment_draws_vectors_to_their_codes_and_moves_no_code():
    torch.manual_seed(0)
    codebook = Codebook(codes=16, channels=4).eval()
    features = torch.randn(2, 4, 3, 5, requires_grad=True)
    _, loss, _ = codebook(features)
    (gradient,) = torch.autograd.grad(loss, features)
    away = features.detach() - codebook.quantize(features.detach())
    torch.testing.assert_close(loss.detach(), 0.25 * away.square().mean())
    torch.testing.assert_close(gradient, 0.25 * 2 * away / away.numel())
    assert not list(codebook.parameters())


def test_codes_are_running_means_of_their_vectors():
    torch.manual_seed(0)
    codebook, centres = Codebook(codes=2, channels=2), torch.tensor([[-3.0, 0.0], [3.0, 0.0]])
    codebook.codes.copy_(centres)
    codebook.usage.fill_(0.5)
    codebook.sums.copy_(0.5 * centres)
    share, sums = torch.full((2,), 0.5), 0.5 * centres
    for _ in range(5):
        vectors = torch.cat([centres[:1] + torch.randn(3, 2), centres[1:] + torch.randn(13, 2)])
        codebook(vectors.T.reshape(1, 2, 4, 4))
        left = vectors[:, 0] < 0
        for i, own in enumerate((vectors[left], vectors[~left])):
            share[i] = 0.99 * share[i] + 0.01 * len(own) / 16
            sums[i] = 0.99 * sums[i] + 0.01 * own.sum(dim=0) / 16
    torch.testing.assert_close(codebook.usage, share)
    torch.testing.assert_close(codebook.codes, sums / share[:, None])


def test_hinge_and_adversarial_loss_of_known_scores():
    task = make_task()
    frames, given_back = torch.ones(2, 3, 16, 16), -torch.ones(2, 3, 16, 16)
    for real, fake, hinge in [(0.0, 0.0, 2.0), (1.0, -1.0, 0.0), (5.0, -5.0, 0.0), (-2.0, 3.0, 7.0), (0.5, -3.0, 0.5)]:
        scores = {1.0: real, -1.0: fake}
        task.discriminator.forward = lambda x: torch.tensor([scores[one[0, 0, 0].item()] for one in x])
        assert task.hinge(frames, given_back).item() == pytest.approx(hinge)
        assert task.adversarial(given_back).item() == pytest.approx(-fake)


def test_the_adversarial_term_grows_from_nothing_to_its_weight():
    task = make_task(adversarial=0.5, hinge=0.0, start=0.4, ramp=0.2)
    batch = task.draw(torch.Generator().manual_seed(0), 4)

    def added(progress):
        task.progress = progress
        loss, report = task(batch)
        return (loss.item() - task_loss) / report["adversarial"]

    task.progress = 0.0
    task_loss = task(batch)[0].item()
    shares = [added(progress) for progress in (0.4, 0.5, 0.6, 0.9)]
    assert shares == pytest.approx([0.0, 0.25, 0.5, 0.5], abs=1e-4)
