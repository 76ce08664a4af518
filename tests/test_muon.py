"""Orthogonalised steps: what they do to matrices, and that everything else is AdamW's."""

import pytest
import torch

from minit2v.training.muon import Muon, orthogonal


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 8, 32), (2, 32, 8), (1, 16, 16)])
def test_keeps_the_directions_and_makes_them_equally_strong(shape, dtype):
    torch.manual_seed(0)
    n, rows, columns = shape
    rank = min(rows, columns)
    u, v = (torch.linalg.qr(torch.randn(n, side, rank))[0] for side in (rows, columns))
    strengths = torch.logspace(0, -2, rank)
    inside = u.mT @ orthogonal((u * strengths @ v.mT).to(dtype)).float() @ v
    kept = inside.diagonal(dim1=1, dim2=2)
    assert kept.min() > 0.6 and kept.max() < 1.25, "1 to 0.01 before"
    assert (inside - kept.diag_embed()).abs().max() < (1e-3 if dtype == torch.float32 else 0.03), "no direction turns"


def test_a_quiet_input_is_learnt_as_fast_as_a_loud_one():
    """Least squares on two inputs, one a twentieth as loud: AdamW's one step in the row space favours the loud."""
    def moved(orthogonal: bool) -> torch.Tensor:
        torch.manual_seed(0)
        turn = torch.linalg.qr(torch.randn(2, 2))[0]
        x = torch.randn(512, 2) * torch.tensor([1.0, 0.05]) @ turn
        wanted = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) @ turn
        weight = torch.nn.Parameter(torch.zeros(2, 2))
        optimizer = Muon([{"params": [weight], "orthogonal": orthogonal}], lr=1e-2, weight_decay=0.0)
        ((x @ weight.T - x @ wanted.T) ** 2).mean().backward()
        optimizer.step()
        return (weight.detach() @ turn.T).norm(dim=0)  # along the loud input, along the quiet one

    loud, quiet = moved(True)
    assert quiet > 0.6 * loud
    loud, quiet = moved(False)
    assert quiet < 0.6 * loud


def test_everything_else_is_stepped_by_adamw():
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    options = {"lr": 1e-2, "weight_decay": 0.1, "betas": (0.9, 0.99)}
    optimizers = Muon([{"params": ours.parameters()}], **options), torch.optim.AdamW(theirs.parameters(), **options)
    for _ in range(5):
        x = torch.randn(8, 4)
        for layer, optimizer in zip((ours, theirs), optimizers):
            optimizer.zero_grad()
            layer(x).square().mean().backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters()))


def test_a_convolution_is_a_matrix_of_taps_in_any_memory_format():
    torch.manual_seed(0)
    gradient = torch.randn(6, 4, 3, 3)
    steps = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        conv = torch.nn.Conv2d(4, 6, 3, bias=False).to(memory_format=memory_format)
        torch.nn.init.zeros_(conv.weight)
        conv.weight.grad = gradient.clone(memory_format=memory_format)
        Muon([{"params": conv.parameters(), "orthogonal": True}], lr=1.0, weight_decay=0.0).step()
        steps.append(conv.weight.detach().contiguous())
    assert torch.allclose(steps[0], steps[1], atol=1e-5)
    singular = torch.linalg.svdvals(steps[0].flatten(1)) / (0.2 * 36**0.5)
    assert 0.6 < singular.min() and singular.max() < 1.25


def test_parameters_keep_their_precision_when_the_steps_are_rounded():
    torch.manual_seed(0)
    weight, gradient = torch.randn(8, 12), torch.randn(8, 12)
    moved = []
    for rounded in (False, True):
        p = torch.nn.Parameter(weight.clone())
        p.grad = gradient.clone()
        Muon([{"params": [p], "orthogonal": True, "bfloat16": rounded}], lr=1e-4, weight_decay=0.0).step()
        moved.append(weight - p.detach())
    assert 0 < (moved[1] - moved[0]).norm() < 0.03 * moved[0].norm(), "a bfloat16 weight would not move at all"
