"""The block-diagonal GRU against torch's own."""

from __future__ import annotations

import torch

from m3po_bench.common.encoders import HistoryEncoder


def encoder() -> HistoryEncoder:
    torch.manual_seed(0)
    return HistoryEncoder(n_branches=2, in_features=5, embedding=7, branch_dim=3)


def test_windows_and_single_steps_agree() -> None:
    model, inputs, state = encoder(), torch.randn(6, 4, 5), torch.randn(4, 6)
    together = model(inputs, state)
    for t in range(6):
        state = model.step(inputs[t], state)
        torch.testing.assert_close(together[t], state)


def test_a_branch_is_torchs_gru() -> None:
    model, inputs, state = encoder(), torch.randn(6, 4, 5), torch.randn(4, 6)
    for branch in range(2):
        gru = torch.nn.GRU(7, 3)
        gru.weight_ih_l0.data = model.from_input.weight[branch].T
        gru.weight_hh_l0.data = model.from_state.weight[branch].T
        gru.bias_ih_l0.data = model.from_input.bias[branch, 0]
        gru.bias_hh_l0.data = model.from_state.bias[branch, 0]
        embedded = model._embedded(inputs.flatten(0, 1))[branch].view(6, 4, 7)
        part = slice(3 * branch, 3 * branch + 3)
        expected = gru(embedded, state[None, :, part].contiguous())[0]
        torch.testing.assert_close(model(inputs, state)[..., part], expected)


def test_nothing_passes_between_branches() -> None:
    model, inputs = encoder(), torch.randn(6, 4, 5)
    state = torch.zeros(4, 6, requires_grad=True)
    model(inputs, state)[..., :3].sum().backward()
    assert state.grad is not None
    assert state.grad[:, :3].abs().sum() > 0
    assert state.grad[:, 3:].abs().sum() == 0
    assert model.from_state.weight.grad is not None
    assert model.from_state.weight.grad[1].abs().sum() == 0
