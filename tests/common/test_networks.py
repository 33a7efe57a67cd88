"""Stacked networks against torch's own layers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from m3po_bench.common.networks import StackedMLP


@pytest.mark.parametrize("out", [1, 3])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_each_stacked_network_is_one_of_linear_layers(out: int, layer_norm: bool) -> None:
    torch.manual_seed(0)
    net, x = StackedMLP(2, 5, (7, 6), out, layer_norm=layer_norm), torch.randn(9, 5)
    together = net(x)
    assert together.shape == (2, 9, out)
    for i in range(2):
        alone = x
        for layer in range(3):
            weight, bias = (p[i] for p in list(net.parameters())[2 * layer : 2 * layer + 2])
            alone = F.linear(alone, weight.T, bias[0])
            if layer < 2:
                alone = F.layer_norm(alone, alone.shape[-1:]) if layer_norm else alone
                alone = F.relu(alone)
        torch.testing.assert_close(together[i], alone)
