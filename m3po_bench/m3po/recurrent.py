"""Policy and critics with encoders of their own (``encoder="separate"``).

Policy and critics have a GRU each. With one for both, the critics' gradient, which is the larger,
drowns the policy's; Ni, Eysenbach and Salakhutdinov 2022 (arXiv 2110.05038) found separate ones the
stable choice for recurrent off-policy agents. Target critics encode with a slow copy of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from m3po_bench.common.encoders import HistoryEncoder
from m3po_bench.common.soft_actor_critic import Actor, Critics
from m3po_bench.m3po.meta_model import MetaModel


class RecurrentActor(Actor):
    """An actor that encodes histories; its features are (observation, own state, critics' state).

    Args:
        model: Says how wide its inputs and the encoder are to be; not kept.
        hidden: Hidden widths behind the encoder.
    """

    def __init__(self, model: MetaModel, hidden: Sequence[int]) -> None:
        super().__init__(model.obs_dim + model.branch_dim, model.action_dim, hidden)
        self.encoder = HistoryEncoder(1, model.encoded_dim, model.embedding, model.branch_dim)
        self._seen = model.obs_dim + model.branch_dim

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Actor.forward``; the critics' state is not looked at."""
        return super().forward(features[..., : self._seen])


class RecurrentCritics(Critics):
    """Critics that encode histories; their features are the actor's.

    Args:
        model: As for ``RecurrentActor``.
        hidden: Hidden widths behind the encoder.
        n: Number of critics; they share the encoder.
        layer_norm: Whether they normalise their hidden layers.
    """

    def __init__(self, model: MetaModel, hidden: Sequence[int], n: int, layer_norm: bool) -> None:
        width = model.obs_dim + model.branch_dim
        super().__init__(width, model.action_dim, hidden, n, layer_norm)
        self.encoder = HistoryEncoder(1, model.encoded_dim, model.embedding, model.branch_dim)
        self._obs_dim = model.obs_dim

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """See ``Critics.forward``; the actor's state is not looked at."""
        obs, own = features[..., : self._obs_dim], features[..., -self.encoder.state_dim :]
        return super().forward(torch.cat([obs, own], -1), action)


def check_encoder(
    encoder: str, history: bool, full_rollouts: bool, window_length: int, burn_in: int
) -> None:
    """Refuse what ``M3PO``'s arguments about encoders cannot be together.

    Raises:
        ValueError: If so; the message names the argument.
    """
    if encoder not in ("shared", "separate"):
        raise ValueError(f"encoder={encoder!r}: expected 'shared' or 'separate'")
    if not 0 <= burn_in < window_length:
        raise ValueError(
            f"policy_burn_in={burn_in}: expected at least 0 and less than "
            f"policy_window_length={window_length}"
        )
    if encoder == "separate" and not history:
        raise ValueError("encoder='separate': expected history=True, else nothing is encoded")
    if encoder == "separate" and full_rollouts:
        raise ValueError(
            "encoder='separate': expected a number of steps as rollout_length, got 'full'; "
            "its updates go back through all steps of a rollout"
        )
