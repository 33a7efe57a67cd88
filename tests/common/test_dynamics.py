"""The Gaussian ensemble recovers a distribution whose parameters are known."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from m3po_bench.common.dynamics import GaussianEnsemble
from m3po_bench.common.networks import StackedLinear


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_learns_mean_and_spread(beta: float) -> None:
    torch.manual_seed(0)
    model = GaussianEnsemble(3, 1, 1, (32, 32), beta)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(600):
        x = torch.rand(3, 128, 1) * 2 - 1
        y = x.square() + torch.where(x > 0, 0.3, 0.05) * torch.randn_like(x)
        optimizer.zero_grad()
        model.loss(x, y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    x = torch.tensor([[-0.5], [0.5]])
    mean, log_var = model(x)
    assert (mean[..., 0] - 0.25).abs().max() < 0.1
    std = (0.5 * log_var).exp()[..., 0]
    assert (std[:, 0] < 0.12).all()
    assert ((std[:, 1] - 0.3).abs() < 0.1).all()
    draws = model.sample(torch.full((4000, 1), 0.5)).detach()
    assert abs(float(draws.std()) - 0.3) < 0.1
    assert abs(float(draws.mean()) - 0.25) < 0.1


def test_every_row_gets_its_own_input_and_members_share_the_rows() -> None:
    torch.manual_seed(0)
    model = GaussianEnsemble(3, 1, 2, (4,), beta=0.5)
    last = cast(StackedLinear, model.net.layers[-1])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        last.bias[:, 0, 2:] = -40.0  # log variances
        last.bias[:, 0, 0] = torch.tensor([1.0, 2.0, 3.0])  # the member's number
        draws = model.sample(torch.zeros(300, 1))[:, 0].round()
    assert set(draws.tolist()) == {1.0, 2.0, 3.0}
    assert all((draws == member).sum() == 100 for member in (1, 2, 3))
    for n in (1, 2, 4):  # no multiple of three: no member is favoured in any row
        with torch.no_grad():
            draws = torch.stack([model.sample(torch.zeros(n, 1))[:, 0].round() for _ in range(600)])
        for member in (1, 2, 3):
            assert ((draws == member).sum(0) - 200).abs().max() < 50  # 4 standard deviations
