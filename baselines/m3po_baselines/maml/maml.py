"""MAML: model-agnostic meta-learning, with a trust region for the outer step.

Finn, Abbeel, Levine, ICML 2017, arXiv 1703.03400; the defaults are those of the authors' code
(40 tasks, 20 rollouts of 200 steps before and after the inner step, inner rate 0.1, trust region
0.01, discount 0.99, networks of 100-100 with ReLU).

=====================================  =========================================================
the method                             here
=====================================  =========================================================
inner step phi_i = theta - alpha grad  ``inner_step.InnerStep`` with ``log_likelihood_loss``
  L_i(theta), by vanilla policy
  gradient
K rollouts before and after it         ``meta_policy_gradient.MetaPolicyGradient.train``
linear feature baseline (Duan 2016)    ``trajectories.linear_baseline``, one fit a task and phase
outer step: TRPO on sum_i L_i(phi_i)   ``MAML._outer_step``, ``trust_region.trust_region_step``;
                                       the divergence is that of the adapted policies
adaptation to a new task               ``policy.AdaptivePolicy.respond``
=====================================  =========================================================

Known deviations from the authors' code

* Exact Hessian-vector products; theirs are finite differences.
* Rollouts are counted in env steps, not in episodes: an env that ends episodes early has more of
  them. One that is running when a phase ends is cut there, as by a time limit, and goes on in the
  next phase. Where phases are shorter than episodes (``quick``), so do several
  iterations in the same tasks; published are new tasks in each.
* Prediction adapts online too, every ``adapt_every`` steps, to the last ``adapt_window`` ones;
  published are one to three steps, each after K whole episodes (``adapt_every=None`` waits for
  the end of each inner episode of a trial). The step always starts from the meta-policy, as in
  training. For actions that an adapted policy drew it takes the scores under that policy
  (``inner_step.score_loss``). The baseline's ridge is 1 there, if not more.
* The last transition of an inner episode of a trial is not learnt from in prediction: its reward
  is not shown.
* ``deterministic`` predictions have noise, since a policy without noise cannot adapt.
* The network sees neither previous action, previous reward nor first-step flag.

Online, one inner step needs tens of transitions, and until the first one nothing is known of the
task. Advantages are normalised, so a change shows only in which actions pay, not in a lower reward;
where adapted actions are all cut to the same end of the range, it does not show. So under schedules
that change the task within an episode expect less than between the episodes of a trial.

What one inner step is worth by itself, ``diagnostics`` measures after learning, on a whole episode
of each held-out task and with none after it: on the point, after 60,000 env steps of ``quick``, the
meta-policy earns about 0 and what the step makes of it 80 to 90. With a step every 25 steps, which
is how the leaderboard plays it, its K-shot rows included, it is about 40, and 20 under ``hazard``
(one seed each, ProMP alike).

On-policy, MAML wants 10^5 env steps on a point and 10^6 to 10^8 elsewhere: with the 3,000 of
``quick`` it learns little on the point and nothing on the pendulum.
"""

from __future__ import annotations

from typing import Any, ClassVar

from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from m3po_baselines.maml.meta_policy_gradient import MetaBatch, MetaPolicyGradient
from m3po_baselines.maml.policy import AdaptivePolicy
from m3po_baselines.maml.trust_region import trust_region_step


class MAML(MetaPolicyGradient):
    """A meta-policy trained by TRPO through one inner step; see the module's docstring.

    Args:
        policy: See ``MetaPolicyGradient``.
        env: See ``MetaPolicyGradient``.
        max_kl: Size of the trust region: largest mean KL divergence from the adapted policies to
            what they are after the outer step.
        cg_iterations: Of conjugate gradients.
        cg_damping: Added to the divergence's Hessian.
        policy_kwargs: See ``MetaPolicyGradient``; by default ``net_arch`` (100, 100) and
            ``activation`` relu.
        **kwargs: See ``MetaPolicyGradient``.
    """

    inner_loss: ClassVar[str] = "log_likelihood"

    def __init__(
        self,
        policy: str | type[AdaptivePolicy],
        env: GymEnv | str | None,
        max_kl: float = 0.01,
        cg_iterations: int = 10,
        cg_damping: float = 1e-5,
        policy_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if max_kl <= 0.0 or cg_iterations < 1 or cg_damping < 0.0:
            raise ValueError(
                f"max_kl={max_kl!r}, cg_iterations={cg_iterations!r}, cg_damping={cg_damping!r}: "
                "expected a positive number, at least 1, and a number not below 0"
            )
        self.max_kl, self.cg_iterations, self.cg_damping = max_kl, cg_iterations, cg_damping
        published = {"net_arch": (100, 100), "activation": "relu"}
        super().__init__(
            policy, env, 0.0, policy_kwargs={**published, **(policy_kwargs or {})}, **kwargs
        )

    def _outer_step(self, meta_batch: MetaBatch) -> dict[str, float]:
        after = meta_batch.after

        def objective(theta: Tensor) -> tuple[Tensor, Tensor]:
            now = self._adapted(theta, meta_batch)
            loss = -after.mean(after.advantage * after.ratio(now))
            return loss, after.mean(after.drawn_from.kl_to(now))

        network = self.policy.network
        step = trust_region_step(
            objective, network.flat(), self.max_kl, self.cg_iterations, self.cg_damping
        )
        vector_to_parameters(step.parameters, network.parameters())
        self._n_updates += 1
        return {
            "policy_loss": step.loss_before,
            "improvement": step.loss_before - step.loss,
            "kl": step.kl,
            "accepted": float(step.accepted),
        }

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy"], []
