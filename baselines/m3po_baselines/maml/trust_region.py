"""The largest step that a trust region allows (TRPO, Schulman et al. 2015, arXiv 1502.05477)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from sb3_contrib.common.utils import conjugate_gradient_solver
from torch import Tensor

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]


class TrustRegionStep(NamedTuple):
    """A step, or none.

    Attributes:
        parameters: After it, shape (n_parameters,).
        loss_before: The surrogate loss that it started from.
        loss: After it.
        kl: From the old distributions to the new ones.
        accepted: False if no step on the line lowered the loss within the region.
    """

    parameters: Tensor
    loss_before: float
    loss: float
    kl: float
    accepted: bool


def trust_region_step(
    objective: Objective,
    parameters: Tensor,
    max_kl: float,
    iterations: int = 10,
    damping: float = 1e-5,
    backtracks: int = 15,
    shrink: float = 0.8,
) -> TrustRegionStep:
    """Lower the loss along the natural gradient, as far as the KL divergence allows.

    Args:
        objective: Loss and KL divergence at given parameters, differentiable; the divergence has
            its minimum, 0, at ``parameters``.
        parameters: Where to start, shape (n_parameters,).
        max_kl: Size of the region.
        iterations: Of conjugate gradients.
        damping: Added to the divergence's Hessian.
        backtracks: Lengths that are tried.
        shrink: Each length over the one before.
    """
    start = parameters.detach().requires_grad_()
    loss, kl = objective(start)
    (gradient,) = torch.autograd.grad(loss, start, retain_graph=True)
    (kl_gradient,) = torch.autograd.grad(kl, start, create_graph=True)

    def hessian_product(vector: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(kl_gradient @ vector, start, retain_graph=True)
        return product + damping * vector

    direction = conjugate_gradient_solver(hessian_product, -gradient, max_iter=iterations)
    curvature = direction @ hessian_product(direction)
    step = (2.0 * max_kl / curvature.clamp(min=1e-12)).sqrt() * direction
    before = loss.item()
    for i in range(backtracks):
        candidate = parameters.detach() + shrink**i * step
        with torch.no_grad():
            new_loss, new_kl = (value.item() for value in objective(candidate))
        if new_loss < before and new_kl <= max_kl:
            return TrustRegionStep(candidate, before, new_loss, new_kl, True)
    return TrustRegionStep(parameters.detach(), before, before, 0.0, False)
