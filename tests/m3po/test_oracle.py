"""M3PO that is told the task."""

from __future__ import annotations

import gymnasium as gym
import pytest

from m3po_bench import make_agent
from m3po_bench.wrappers import TASK, layout_of

ENV = "M3PO/PointFwdBwd-v0"


def test_the_oracle_sees_the_task_of_an_env_made_without() -> None:
    told = make_agent("M3PO-Oracle", gym.make(ENV), preset="tiny", seed=0)
    like = make_agent("M3PO-Oracle", ENV, preset="tiny", seed=0)
    plain = make_agent("M3PO", ENV, preset="tiny", seed=0)
    assert TASK in layout_of(told.env).names
    assert TASK not in layout_of(plain.env).names
    assert told.observation_space.shape == like.observation_space.shape


def test_what_has_no_task_to_show_is_refused() -> None:
    with pytest.raises(ValueError, match=r'must see the task.*visibility="oracle"'):
        make_agent("M3PO-Oracle", gym.make("Pendulum-v1"), preset="tiny")
