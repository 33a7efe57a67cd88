"""M3PO told the task: beside M3PO, what its inference of the task leaves to be gained."""

from __future__ import annotations

from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from m3po_bench.m3po.m3po import M3PO
from m3po_bench.wrappers import check_shows_task, show_task


class M3POOracle(M3PO):
    """M3PO that sees the task, with a privilege no other M3PO has; all else is alike.

    The task is in the observation, as the env gives it, so the model predicts it too. To a single
    Gymnasium env that was made without ``visibility="oracle"``, ``ObserveTask`` is added.

    Raises:
        ValueError: If the observation does not show the task, and cannot be made to.
    """

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return M3PO._wrap_env(show_task(env), verbose, monitor_wrapper)

    def _setup_model(self) -> None:
        if self.env is not None:  # none while one is loaded without
            check_shows_task(self.env)
        super()._setup_model()
