"""PEARL's update against the matrix products in it: a ratio in one process, never seconds."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from m3po_baselines import PEARL
from m3po_bench import make_agent

Product = tuple[Tensor, Tensor, Tensor]


def product(n: int, rows: int, inner: int, columns: int) -> Product:
    return (
        torch.randn(n, rows, inner),
        torch.randn(n, inner, columns),
        torch.empty(n, rows, columns),
    )


def forward(n: int, rows: int, sizes: list[int]) -> list[Product]:
    return [product(n, rows, a, b) for a, b in pairwise(sizes)]


def backward(
    n: int, rows: int, sizes: list[int], weights: bool = True, inputs: bool = True
) -> list[Product]:
    """Products of the weights' gradients, and of the layers' inputs'; the first's if ``inputs``."""
    of_weights = [product(n, a, rows, b) for a, b in pairwise(sizes)] if weights else []
    of_inputs = [product(n, rows, b, a) for a, b in pairwise(sizes)]
    return of_weights + (of_inputs if inputs else of_inputs[1:])


def products(model: PEARL) -> list[Product]:
    policy = model.policy
    rows = model.meta_batch * model.batch_size
    context = model.meta_batch * model._context_sizes[1]
    features = policy.obs_dim + policy.latent_dim
    encoder = [policy.obs_dim * 2 + policy.action_dim + 1, *3 * [200], 2 * policy.latent_dim]
    actor = [features, *3 * [300], 2 * policy.action_dim]
    critics = [features + policy.action_dim, *3 * [300], 1]
    return [
        *forward(1, context, encoder),
        *backward(1, context, encoder, inputs=False),
        *forward(1, rows, actor),  # the next action
        *forward(2, rows, critics),  # its target value
        *forward(2, rows, critics),
        *backward(2, rows, critics),  # as far as z, which is among the inputs
        *forward(1, rows, actor),
        *forward(2, rows, critics),
        *backward(2, rows, critics, weights=False),  # as far as the action
        *backward(1, rows, actor, inputs=False),
    ]


def test_an_update_is_mostly_matrix_products(ratio: Callable[..., float]) -> None:
    """Sampling, losses, optimisers and target networks included; at most twice the products."""
    model: PEARL = make_agent(
        "PEARL", "M3PO/HalfCheetahFwdBwd-v0", seed=0, initial_steps=200, tasks_per_iteration=1,
        prior_steps=200, posterior_steps=0, updates_per_iteration=2,
    ).learn(600)  # fmt: skip
    torch.set_num_threads(1)
    tasks, pairs = torch.tensor([0, 1, 1, 0]), products(model)

    def ours() -> None:
        model._update(tasks)

    def peer() -> None:
        for left, right, out in pairs:
            torch.bmm(left, right, out=out)

    assert ratio(ours, peer) < 2.0
