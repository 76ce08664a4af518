"""AdamW, but matrices take orthogonalised steps: Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

A gradient is mostly a few strong directions: Adam follows these and hardly moves along the weak ones. Muon replaces
the averaged gradient U S V^T of a weight matrix by U V^T, so every direction moves by the same amount.
"""

from collections import defaultdict

import torch
from torch import Tensor

from minit2v.training.sharding import cut_like, gathered


class Muon(torch.optim.AdamW):
    """AdamW whose groups with ``"orthogonal": True`` are stepped by Muon; the others are AdamW's.

    A group with ``"bfloat16": True`` is orthogonalised in bfloat16, as its authors do: rounding moves the singular
    values by less than the polynomial leaves between them.

    The same learning rate suits both: an orthogonal step is scaled to the size of AdamW's (Moonlight, arXiv
    2502.16982, equation 4). A convolution is the matrix of its taps, (out, in * taps). Of matrices in pieces (see
    `sharding`) every rank gathers the gradient and steps its own piece.
    """

    def __init__(self, groups: list[dict], momentum: float = 0.95, **adamw):
        super().__init__([{"orthogonal": False, "bfloat16": False} | group for group in groups], **adamw)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            if group["orthogonal"]:
                self.orthogonal_step(group)
        return super().step(closure)  # passes over what has no gradient, which now includes the matrices

    def keeps(self, group: dict) -> set[str]:
        """Names of what is kept of each parameter of a group."""
        return {"step", "momentum"} if group["orthogonal"] else {"step", "exp_avg", "exp_avg_sq"}

    def orthogonal_step(self, group: dict) -> None:
        alike = defaultdict(list)  # matrices of one shape are orthogonalised together
        for p in group["params"]:
            if p.grad is not None:
                alike[p.shape].append(p)
        for shape, parameters in alike.items():
            averages = torch.stack([gathered(self.average(p)).flatten(1) for p in parameters])
            steps = orthogonal(averages.bfloat16() if group["bfloat16"] else averages).to(averages.dtype)
            size = 0.2 * max(steps.shape[1:]) ** 0.5
            for p, step in zip(parameters, steps):
                step = cut_like(step.view(shape), p)
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=group["lr"] * size)
                p.grad = None

    def average(self, p: Tensor) -> Tensor:
        """The gradient with momentum, of Nesterov's kind."""
        state = self.state[p]
        if not state:  # AdamW, when a run is resumed, expects a step of every state
            state |= {"momentum": torch.zeros_like(p), "step": torch.zeros(())}
        mean = state["momentum"].lerp_(p.grad, 1 - self.momentum)
        return p.grad.lerp(mean, self.momentum)


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """U V^T of each matrix U S V^T (n, rows, columns), nearly: singular values end between 0.7 and 1.2.

    An odd polynomial of the matrix, iterated, drives all its singular values towards 1 (Newton and Schulz), by
    products alone.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)
    for _ in range(steps):
        gram = x @ x.mT
        mixed = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, mixed, x, beta=3.4445)
    return x.mT if tall else x
