"""Policies that can be kept in a file without the agent that learnt them."""

from __future__ import annotations

import inspect
from typing import Any, Self

from stable_baselines3.common.policies import BasePolicy


class KeptPolicy(BasePolicy):
    """An SB3 policy whose ``save`` keeps all that it was made with, whatever its subclass.

    ``save`` and ``load`` are SB3's. Other policies have to name each argument that ``load`` shall
    make them with again, and sb3-contrib's recurrent one forgets the size of its LSTM.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Note what the policy is made with.

        The agent's learning rate stays with the agent: it may not be picklable.
        """
        policy = super().__new__(cls)
        _, *names = inspect.signature(cls.__init__).parameters
        made_with = {**dict(zip(names, args, strict=False)), **kwargs}
        dummy = {"lr_schedule": cls._dummy_schedule}
        policy.__dict__["_made_with"] = {k: dummy.get(k, given) for k, given in made_with.items()}
        return policy

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return dict(self.__dict__["_made_with"])
