"""RL2: fast reinforcement learning via slow reinforcement learning.

Duan, Schulman, Chen, Bartlett, Sutskever, Abbeel 2016, arXiv 1611.02779; Wang et al. 2016,
"Learning to reinforcement learn", arXiv 1611.05763. The optimiser is ``sb3_contrib.RecurrentPPO``;
the defaults are those of the ProMP authors' RL2 (LSTM of 64, 100 trials of 2 episodes of 200 steps,
5 epochs at 1e-3, discount 0.99, lambda 1).

=====================================  =========================================================
the method                             here
=====================================  =========================================================
trial: K episodes in one task          ``m3po_bench.wrappers.TrialWrapper``, around every env
input (o_t, a_{t-1}, r_{t-1}, d_{t-1}) ``m3po_bench.wrappers.PreviousActionReward``
memory lasts through a trial           the episodes that PPO sees are trials, so its LSTM states
                                       are reset where a trial starts and nowhere else
return of the whole trial              PPO's, discounted across inner episodes
policy optimisation                    ``sb3_contrib.RecurrentPPO``, unchanged
=====================================  =========================================================

Known deviations

* PPO in place of TRPO (Duan) and A3C (Wang), an LSTM in place of Duan's GRU; learnt values, with
  an LSTM of their own, in place of a linear baseline; minibatches of 4,000 steps. What is not
  named above is as in SB3, such as the clip range (0.2) and the largest norm of a gradient (0.5).
* The input has a flag of the first step of an episode in place of one of the last, and with it
  neither action nor reward: the last reward of an inner episode is not shown.
* Values are bootstrapped where the time limit of its last episode ends a trial, as SB3 does at
  every time limit.
* Where the env's schedule changes the task within an episode, it does so in training too; each
  inner episode of a trial starts in the same task.
* A rollout may end within a trial; gradients are cut there, the LSTM's states go on.
* SB3 collects whole rollouts: ``learn`` rounds the number of env steps up to a multiple of
  ``n_steps`` times the parallel envs.

On-policy, RL2 wants some 10^5 env steps on a point (its returns are far from steady on the way) and
millions elsewhere: with the 3,000 of ``quick`` it hardly learns.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Self

import gymnasium as gym
from sb3_contrib import RecurrentPPO
from sb3_contrib.ppo_recurrent import MlpLstmPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.vec_env import VecEnv

from m3po_baselines.parallel_envs import TrainsInCopies, parallel_copies
from m3po_bench.common.arguments import check_counts
from m3po_bench.common.kept_policy import KeptPolicy
from m3po_bench.common.vec_wrappers import VecPreviousActionReward
from m3po_bench.wrappers import PreviousActionReward, TrialWrapper, layout_of


def in_trials(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The env in trials, with previous action, previous reward and first-step flag."""
    if is_wrapped(env, TrialWrapper):
        return env
    return TrialWrapper(env if layout_of(env).has_history else PreviousActionReward(env))


class TrialPolicy(KeptPolicy, MlpLstmPolicy):
    """sb3-contrib's recurrent policy, unchanged but for what its ``save`` keeps."""


class RL2(TrainsInCopies, RecurrentPPO):
    """Recurrent PPO over trials; see the module's docstring.

    Every ``learn`` begins new trials; afterwards the env draws its own tasks again.

    Args:
        policy: ``"MlpPolicy"``, or a recurrent policy of sb3-contrib.
        env: A single meta-environment is copied and put into trials. A VecEnv is taken as it is:
            make its envs with ``TrialWrapper``, or every trial is one episode.
        n_episodes: Episodes of a trial, for every ``TrialWrapper``, also one that ``env`` had.
        n_envs: Envs that are stepped side by side, where ``env`` is a single one.
        learning_rate: See ``RecurrentPPO``.
        n_steps: Env steps of a rollout, in each env; a trial's, so that gradients reach through it.
        batch_size: See ``RecurrentPPO``.
        n_epochs: See ``RecurrentPPO``.
        gamma: See ``RecurrentPPO``.
        gae_lambda: See ``RecurrentPPO``.
        policy_kwargs: See ``RecurrentPPO``; by default an LSTM of 64 and no other hidden layer.
        **kwargs: See ``RecurrentPPO``.

    Raises:
        ValueError: If an argument is out of its range, or the env has no task to keep in a trial.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": TrialPolicy,
        **RecurrentPPO.policy_aliases,
    }

    def __init__(
        self,
        policy: str | type[Any],
        env: GymEnv | str | None,
        n_episodes: int = 2,
        n_envs: int = 100,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 400,
        batch_size: int = 4000,
        n_epochs: int = 5,
        gamma: float = 0.99,
        gae_lambda: float = 1.0,
        policy_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_counts(n_episodes=n_episodes, n_envs=n_envs)
        self.n_episodes = n_episodes
        if env is not None:
            env = parallel_copies(env, n_envs, in_trials)
        super().__init__(
            policy, env,  # type: ignore[arg-type]  # None while loading, as everywhere in SB3
            learning_rate, n_steps, batch_size, n_epochs, gamma, gae_lambda,
            policy_kwargs={"lstm_hidden_size": 64, "net_arch": [], **(policy_kwargs or {})},
            **kwargs,
        )  # fmt: skip

    @staticmethod
    def _each(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        return in_trials(env)

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        env = in_trials(env) if isinstance(env, gym.Env) else env
        venv = BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper)
        return venv if layout_of(venv).has_history else VecPreviousActionReward(venv)

    def learn(self, *args: Any, **kwargs: Any) -> Self:
        """See ``RecurrentPPO.learn``; every call begins new trials."""
        assert self.env is not None
        self._last_obs = None
        try:
            return super().learn(*args, **kwargs)
        finally:
            self.env.reset()  # or a trial that was stopped would leave its task in force

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        assert self.env is not None
        # Here, and not where it is made: an env may come later, by set_env or load.
        if not all(self.env.env_is_wrapped(TrialWrapper)):
            warnings.warn(
                f"RL2: the envs of {self.env} are without TrialWrapper, so every trial is one "
                "episode; make them with it",
                stacklevel=3,
            )
        elif not self.env.has_attr("first_task"):
            raise ValueError(
                f"RL2 keeps the task of a trial's first episode, but {self.env} has no "
                "'first_task': expected a meta-environment such as M3PO/PointFwdBwd-v0"
            )
        else:
            self.env.env_method("set_wrapper_attr", "n_episodes", self.n_episodes)
        found: tuple[int, BaseCallback] = super()._setup_learn(*args, **kwargs)
        return found
