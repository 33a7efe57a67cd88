"""ProMP: proximal meta-policy search.

Rothfuss, Lee, Clavera, Asfour, Abbeel, ICLR 2019, arXiv 1810.06784; the defaults are those of the
authors' code (40 tasks, 20 rollouts of 200 steps before and after the inner step, inner rate 0.1, 5
steps of Adam at 1e-3, clip range 0.3, KL penalty 5e-4, networks of 64-64 with tanh).

=====================================  =========================================================
the method                             here
=====================================  =========================================================
LVC surrogate, whose curvature gives   ``inner_step.likelihood_ratio_loss`` in the inner step:
  credit to actions before adaptation    ratio to the density at which the action was drawn
J^CLIP of the adapted policies         ``ProMP._loss``
- eta KL(theta_old || theta)           ``ProMP._loss``, over the trajectories before the step
several gradient steps a meta-batch    ``ProMP._outer_step``
collection, baseline, adaptation       as in ``maml``
=====================================  =========================================================

Known deviations from the authors' code: those of ``maml`` but the first (there are no Hessians of
its own), and that the presets ``lite`` and ``quick`` are MAML's, networks and action scale
included, with twice the published outer steps on each meta-batch in ``lite``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from m3po_baselines.maml.meta_policy_gradient import MetaBatch, MetaPolicyGradient
from m3po_baselines.maml.policy import AdaptivePolicy


class ProMP(MetaPolicyGradient):
    """A meta-policy trained by clipped steps through one inner step; see the module's docstring.

    Args:
        policy: See ``MetaPolicyGradient``.
        env: See ``MetaPolicyGradient``.
        learning_rate: Of the outer steps, by Adam.
        n_epochs: Outer steps on each meta-batch.
        clip_range: How far the adapted policies' ratios may move from 1.
        kl_penalty: Weight of the divergence from the old meta-policy to the new one.
        policy_kwargs: See ``MetaPolicyGradient``; by default ``net_arch`` (64, 64),
            ``activation`` tanh and ``action_scale`` 10.
        **kwargs: See ``MetaPolicyGradient``.
    """

    inner_loss: ClassVar[str] = "likelihood_ratio"

    def __init__(
        self,
        policy: str | type[AdaptivePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        n_epochs: int = 5,
        clip_range: float = 0.3,
        kl_penalty: float = 5e-4,
        policy_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if n_epochs < 1 or clip_range <= 0.0 or kl_penalty < 0.0:
            raise ValueError(
                f"n_epochs={n_epochs!r}, clip_range={clip_range!r}, kl_penalty={kl_penalty!r}: "
                "expected at least 1, a positive number, and a number not below 0"
            )
        self.n_epochs, self.clip_range, self.kl_penalty = n_epochs, clip_range, kl_penalty
        published = {"net_arch": (64, 64), "activation": "tanh", "action_scale": 10.0}
        super().__init__(
            policy,
            env,
            learning_rate,
            policy_kwargs={**published, **(policy_kwargs or {})},
            **kwargs,
        )

    def _setup_model(self) -> None:
        super()._setup_model()
        self.optimizer = torch.optim.Adam(
            self.policy.network.parameters(), lr=self.lr_schedule(1.0)
        )

    def _loss(self, theta: Tensor, meta_batch: MetaBatch) -> tuple[Tensor, Tensor]:
        """Minus the clipped surrogate plus the penalty; and the KL divergence by itself."""
        before, after = meta_batch
        ratio = after.ratio(self._adapted(theta, meta_batch))
        clipped = ratio.clamp(1.0 - self.clip_range, 1.0 + self.clip_range)
        surrogate = torch.minimum(ratio * after.advantage, clipped * after.advantage)
        kl = before.mean(before.drawn_from.kl_to(self.policy.network.at(theta, before.obs)))
        return self.kl_penalty * kl - after.mean(surrogate), kl

    def _outer_step(self, meta_batch: MetaBatch) -> dict[str, float]:
        self._update_learning_rate(self.optimizer)
        losses, kl = [], torch.zeros(())
        for _ in range(self.n_epochs):
            loss, kl = self._loss(self.policy.network.flat(), meta_batch)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self._n_updates += 1
            losses.append(loss.item())
        return {"policy_loss": losses[0], "improvement": losses[0] - losses[-1], "kl": kl.item()}

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "optimizer"], []
