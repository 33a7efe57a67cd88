"""MAML and ProMP as SB3 algorithms: what they collect, how they adapt, that they learn to."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor

from m3po_baselines import MAML, ProMP
from m3po_baselines.maml import held_out
from m3po_baselines.maml.inner_step import Batch, Gaussian, InnerStep
from m3po_baselines.maml.meta_policy_gradient import MetaBatch, MetaPolicyGradient
from m3po_baselines.maml.policy import ONLINE_RIDGE, Memory
from m3po_baselines.maml.trajectories import EMPTY, Trajectories
from m3po_bench import make_agent
from m3po_bench.wrappers import TrialWrapper

ENV = "M3PO/PointFwdBwd-v0"
NAMES = ("MAML", "ProMP")


def tiny(name: str = "MAML", env: Any = None, **kwargs: Any) -> MetaPolicyGradient:
    made = gym.make(ENV) if env is None else env
    model: MetaPolicyGradient = make_agent(name, made, preset="tiny", seed=0, **kwargs)
    return model


class Seen(BaseCallback):
    """Keeps what the training envs report, and stops after a number of steps."""

    def __init__(self, stop_at: int = 10**9) -> None:
        super().__init__()
        self.stop_at = stop_at
        self.infos: list[list[dict[str, Any]]] = []

    def _on_step(self) -> bool:
        self.infos.append(self.locals["infos"])
        return self.num_timesteps < self.stop_at


class Batches(MAML):
    """Keeps its meta-batches."""

    def _outer_step(self, meta_batch: MetaBatch) -> dict[str, float]:
        self.__dict__.setdefault("kept", []).append(meta_batch)
        return super()._outer_step(meta_batch)


@pytest.mark.parametrize("stops", [(), (60, 240), (99, 102, 360)])
def test_every_env_step_is_learnt_from_once(stops: tuple[int, ...]) -> None:
    """Also if a callback stops, within a phase or at its last step, before it is learnt from."""
    model = Batches(
        "MlpPolicy", gym.make(ENV), n_tasks=6, n_steps=20, n_envs=3, seed=0,
        policy_kwargs={"net_arch": [4]},
    )  # fmt: skip
    for stop in stops:
        model.learn(480, callback=Seen(stop_at=stop), reset_num_timesteps=False)
        assert model.num_timesteps == stop
    model.learn(480 - model.num_timesteps, reset_num_timesteps=False)
    kept = model.__dict__["kept"]
    assert model.num_timesteps == 480
    assert len(kept) == model._n_updates == 2
    rows = torch.cat([part.obs.flatten(0, 1) for batch in kept for part in batch])
    assert rows.shape == (480, 3)
    assert len(torch.unique(rows, dim=0)) == 480


def test_tasks_are_drawn_held_and_given_back() -> None:
    """Under a schedule that changes them every other step, which training must not follow."""
    env = gym.make(ENV, schedule={"name": "periodic", "period": 2})
    model, seen = tiny(env=env, n_envs=4, n_tasks=4, n_steps=100), Seen()
    model.learn(4 * 1200, callback=seen)
    assert all(info["n_changes"] == 0 for infos in seen.infos for info in infos)
    tasks = np.array([[info["task"][0] for info in infos] for infos in seen.infos])
    episodes = tasks.reshape(12, 100, 4)
    assert (episodes == episodes[:, :1]).all()
    drawn = episodes[::2, 0]
    np.testing.assert_array_equal(drawn, episodes[1::2, 0])  # the same before and after the step
    assert all(len(set(column)) == 2 for column in drawn.T)  # every env meets both tasks
    assert any(len(set(row)) == 2 for row in drawn)  # not all envs the same one
    assert model.env is not None
    model.env.reset()
    for _ in range(5):
        *_, infos = model.env.step(np.zeros((4, 1)))
    assert infos[0]["n_changes"] == 2


def test_phases_run_on_where_they_are_part_of_an_episode() -> None:
    model, seen = tiny(n_tasks=1, n_steps=20), Seen()  # iterations of 40 steps, episodes of 100
    model.learn(240, callback=seen)
    ends = [t + 1 for t, infos in enumerate(seen.infos) if "episode" in infos[0]]
    # The iteration that the first end falls into is completed, then the next task begins.
    assert ends == [100, 220]
    assert model._n_updates == 6


def test_time_counts_from_the_start_of_each_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(n_tasks=1, n_steps=60)
    times: list[np.ndarray] = []
    batch = model.policy.batch

    def kept(found: Trajectories, drawn_from: Gaussian) -> Batch:
        times.append(found.time)
        return batch(found, drawn_from)

    monkeypatch.setattr(model.policy, "batch", kept)
    model.learn(360)
    # The second iteration begins a task, and so an episode; no first one is cut.
    expected = [*range(60), *range(60, 100), *range(20)] * 3
    np.testing.assert_array_equal(np.concatenate(times, axis=1)[0], expected)


@pytest.mark.parametrize(("stop", "steps_in_task"), [(130, 120), (400, 160)])
def test_a_continued_learn_goes_on_in_the_same_tasks(stop: int, steps_in_task: int) -> None:
    """With new episodes of 100 steps: an iteration of 40 in which one ends is the tasks' last."""
    model, seen = tiny(n_envs=10, n_tasks=10, n_steps=20), Seen(stop_at=stop)
    model.learn(2000, callback=seen)
    seen.stop_at = 10**9
    model.learn(2000 - stop, callback=seen, reset_num_timesteps=False)
    assert model._n_updates == 5
    tasks = np.array([[info["task"][0] for info in infos] for infos in seen.infos])
    assert np.flatnonzero((tasks != tasks[0]).any(1))[0] == steps_in_task
    ends = [i for i, infos in enumerate(seen.infos) if "episode" in infos[0]]
    assert ends == [stop // 10 + 99]


def test_a_task_begun_by_the_last_step_is_not_over_when_learning_goes_on() -> None:
    model, seen = tiny(n_tasks=1, n_steps=20), Seen()
    for _ in range(2):
        model.learn(120, callback=seen, reset_num_timesteps=False)
    ends = [t + 1 for t, infos in enumerate(seen.infos) if "episode" in infos[0]]
    assert ends == [100, 220]


def test_envs_end_episodes_at_different_times() -> None:
    env = gym.make("M3PO/HopperRandomParams-v0")
    model = tiny(env=env, n_envs=2, n_steps=60)
    seen = Seen()
    model.learn(480, callback=seen)
    assert model.num_timesteps == 480
    assert model._n_updates == 2
    ends = np.array([["episode" in info for info in infos] for infos in seen.infos])
    assert (ends[:, 0] != ends[:, 1]).any()
    assert torch.isfinite(model.policy.network.flat()).all()


def test_one_env_is_copied_and_several_are_kept() -> None:
    model = tiny(env=Monitor(gym.make(ENV, schedule="single")), n_envs=2)
    assert model.env is not None
    assert model.n_envs == model.env.num_envs == 2
    assert {schedule.name for schedule in model.env.get_attr("schedule")} == {"single"}
    model.learn(100)
    starts = model.env.reset()
    assert isinstance(starts, np.ndarray)
    assert not np.allclose(starts[0], starts[1])
    model.set_env(gym.make(ENV))
    assert model.n_envs == model.env.num_envs == 2
    assert tiny(env=make_vec_env(ENV, n_envs=2), n_envs=7).n_envs == 2
    assert MAML("MlpPolicy", ENV, n_envs=3, n_tasks=3).n_envs == 3


def acted(model: Any, n_steps: int, signs: np.ndarray, n_episodes: int = 1) -> list[Any]:
    """Memories, of arrays, along episodes in which action times sign is rewarded."""
    n, memories = len(signs), []
    obs = np.zeros((n, 6))
    obs[:, -1] = 1.0
    obs[:, 0] = np.linspace(-1.0, 1.0, n)
    state: Any = None
    for step in range(n_steps * n_episodes):
        action, state = model.predict(obs, state, np.full(n, step == 0), deterministic=True)
        memories.append(Memory(*state))
        inner_start = (step + 1) % n_steps == 0
        reward = action[:, 0] * signs
        obs[:, 3:] = np.column_stack([action[:, 0], reward, np.zeros(n)])
        if inner_start:
            obs[:, 3:] = (0.0, 0.0, 1.0)
    return memories


def test_adapts_every_so_many_steps_to_the_window() -> None:
    model = tiny(adapt_every=10, adapt_window=15)
    theta = model.policy.network.flat().detach()
    memories = acted(model, 31, np.array([1.0, -1.0]))
    changed = [
        step
        for step in range(1, 31)
        if not np.array_equal(memories[step].parameters, memories[step - 1].parameters)
    ]
    assert changed == [10, 20, 30]
    for step in (10, 30):
        window = memories[step].window[:, -10:] if step == 10 else memories[step].window
        np.testing.assert_array_equal(
            window[0, :, -1], np.arange(step - 15, step)[-len(window[0]) :]
        )
        drawn_from = Gaussian(torch.as_tensor(window[..., 4:5]), torch.as_tensor(window[..., 5:6]))
        found = Trajectories(window[..., :3], window[..., 3:4], window[..., 6], window[..., 7])
        batch = model.policy.batch(found, drawn_from, ONLINE_RIDGE)
        loss = "log_likelihood" if step == 10 else "score"  # the meta-policy drew the first ten
        expected = InnerStep(model.policy.network, 0.1, loss).adapt(theta, batch)
        np.testing.assert_allclose(memories[step].parameters, expected, atol=1e-6)
    # Opposite rewards for the same noise: opposite ways.
    toward = memories[10].parameters - theta.numpy()
    assert toward[0] @ toward[1] < 0.0


def test_an_episode_start_forgets_its_own_env_alone() -> None:
    model = tiny(adapt_every=10, adapt_window=15)
    memory = acted(model, 25, np.ones(2))[-1]
    obs = np.zeros((2, 6))
    obs[0, -1] = 1.0
    starts = np.array([True, False])
    _, state = model.predict(obs, tuple(memory), starts, deterministic=True)
    assert state is not None
    after = Memory(*map(torch.from_numpy, state))
    np.testing.assert_array_equal(after.parameters[0], model.policy.network.flat().detach())
    np.testing.assert_array_equal(after.parameters[1], memory.parameters[1])
    assert (after.window[0, :, -1] == EMPTY).all()
    assert (after.window[1, :, -1] >= 0).all()
    assert after.pending[:, -1].tolist() == [0.0, 25.0]
    assert after.draws[:, 1].tolist() == [1, 26]


def test_the_early_window_is_padded() -> None:
    model = tiny(adapt_every=10, adapt_window=50)
    window = acted(model, 12, np.ones(1))[10].window
    assert (window[0, :40, -1] == EMPTY).all()
    np.testing.assert_array_equal(window[0, 40:, -1], np.arange(10))


def test_a_few_transitions_are_not_explained_away_by_the_baseline() -> None:
    def adapted(ridge: float) -> Any:
        return acted(tiny(adapt_every=10, baseline_ridge=ridge), 15, np.ones(1))[-1].parameters

    assert (adapted(1e-5) == adapted(1.0)).all()  # what the published ridge is online
    assert (adapted(5.0) != adapted(1.0)).any()


def test_between_the_episodes_of_a_trial_only() -> None:
    model = tiny(adapt_every=None, adapt_window=50)
    theta = model.policy.network.flat().detach().numpy()
    memories = acted(model, 20, np.ones(2), n_episodes=2)
    assert all((memory.parameters == theta).all() for memory in memories[:20])
    assert (memories[20].parameters != theta).any()
    assert all((m.parameters == memories[20].parameters).all() for m in memories[20:])
    # The last transition's reward is not shown: 19 of the first episode, 19 so far of the second.
    times = memories[39].window[0, :, -1]
    np.testing.assert_array_equal(times[-38:], [*range(19), *range(19)])
    assert (times[:-38] == EMPTY).all()


def test_adaptation_leaves_the_agent_and_the_given_state_alone() -> None:
    model = tiny(adapt_every=5)
    before = model.policy.network.flat().detach().clone()
    obs = gym.make(ENV).reset(seed=0)[0][None]
    state: Any = None
    for _ in range(12):
        given = None if state is None else [part.copy() for part in state]
        old = state
        _, state = model.predict(obs, state, deterministic=True)
        if given is not None:
            for part, copy in zip(old, given, strict=True):
                np.testing.assert_array_equal(part, copy)
    torch.testing.assert_close(model.policy.network.flat().detach(), before, rtol=0, atol=0)


def test_deterministic_noise_does_not_depend_on_the_other_envs_or_the_generator() -> None:
    model = tiny()
    obs = np.stack([gym.make(ENV).reset(seed=seed)[0] for seed in range(2)])
    together, _ = model.predict(obs, None, np.ones(2, bool), deterministic=True)
    torch.rand(3)
    alone, state = model.predict(obs[1:], None, np.ones(1, bool), deterministic=True)
    np.testing.assert_allclose(together[1], alone[0], rtol=1e-6)
    again, _ = model.predict(obs[1:], state, np.zeros(1, bool), deterministic=True)
    assert not np.allclose(again, alone)  # fresh noise at each step
    first, second = (model.predict(obs, None, np.ones(2, bool))[0] for _ in range(2))
    assert not np.allclose(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_an_update_changes_adapted_policies_by_little(name: str) -> None:
    model = tiny(name, n_envs=2, n_steps=100).learn(400)
    logs = model.logger.name_to_value
    assert 0.0 < logs["train/kl"] <= 0.011
    assert logs["train/improvement"] > 0.0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_tasks": 0}, "n_tasks=0: expected at least 1"),
        ({"n_envs": 0}, "n_envs=0: expected at least 1"),
        ({"adapt_every": 0}, "adapt_every=0: expected at least 1"),
        ({"n_tasks": 3, "n_envs": 2}, "n_tasks=3: expected a multiple of the 2 parallel envs"),
        ({"inner_learning_rate": 0.0}, "inner_learning_rate=0.0"),
        ({"max_kl": -1.0}, "max_kl=-1.0"),
        ({"device": "cuda"}, "device='cuda'"),
        ({"policy_kwargs": {"activation": "rely"}}, "nearest: relu"),
        ({"policy_kwargs": {"min_std": 2.0}}, "min_std=2.0"),
        ({"policy_kwargs": {"action_scale": 0.0}}, "action_scale=0.0"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**kwargs)


def test_wrong_arguments_of_promp_are_named() -> None:
    with pytest.raises(ValueError, match="n_epochs=0"):
        ProMP("MlpPolicy", ENV, n_epochs=0)


def test_no_steps_are_random() -> None:
    """What the policy did not draw it would learn from as if it had."""
    with pytest.raises(TypeError, match="learning_starts"):
        tiny(learning_starts=10)


def test_envs_without_a_task_to_choose_are_refused() -> None:
    with pytest.raises(ValueError, match="chooses the task it trains in"):
        tiny(env=gym.make("Pendulum-v1"))
    with pytest.raises(ValueError, match="without TrialWrapper"):
        tiny(env=TrialWrapper(gym.make(ENV)))
    unspecified = gym.make(ENV).unwrapped
    unspecified.spec = None
    with pytest.raises(ValueError, match="has no spec"):
        tiny(env=unspecified, n_envs=2)


@pytest.mark.parametrize("name", NAMES)
def test_large_steps_online_stay_finite(name: str) -> None:
    """Adapted actions lie many deviations away from the meta-policy's."""
    model = make_agent(name, gym.make(ENV), preset="quick", seed=0, inner_learning_rate=30.0)
    memories = acted(model, 150, np.array([1.0, -1.0]))
    theta = model.policy.network.flat().detach().numpy()
    assert np.abs(memories[-1].parameters - theta).max() < 1000.0
    log_std = memories[-1].pending[:, 5]
    assert (np.abs(log_std) < 60.0).all()


@pytest.mark.parametrize("name", NAMES)
def test_diagnostics_play_held_out_tasks_before_and_after_one_inner_step(
    name: str, trial_returns: Callable[[Any], tuple[float, float]]
) -> None:
    model = make_agent(
        name, gym.make(ENV, schedule="hazard"), preset="quick", seed=0, inner_learning_rate=3.0
    )
    found = model.diagnostics([SimpleNamespace(index=i) for i in range(20)])
    assert model.policy.adapt_every == model.adapt_every == 25
    model.policy.adapt_every = None
    before, after = trial_returns(model)
    assert before != after
    assert found["adaptation/return_before"] == pytest.approx(before)
    assert found["adaptation/return_after"] == pytest.approx(after)


@pytest.mark.parametrize(("window", "inner_episodes"), [(20, 2), (100, 2), (101, 3), (250, 4)])
def test_diagnostics_play_as_many_episodes_as_the_window_holds(
    window: int, inner_episodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def trial(env: gym.Env[Any, Any], n_episodes: int) -> TrialWrapper:
        asked.append(n_episodes)
        return TrialWrapper(env, n_episodes)

    monkeypatch.setattr(held_out, "TrialWrapper", trial)
    tiny(adapt_window=window).diagnostics([SimpleNamespace(index=0)])
    assert asked == [inner_episodes]


def test_diagnostics_end_with_a_fall() -> None:
    model = tiny(env=gym.make("M3PO/HopperRandomParams-v0"))
    found = model.diagnostics([SimpleNamespace(index=i) for i in range(2)])
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "floor"), [("MAML", 60.0), ("ProMP", 50.0)])
def test_one_inner_step_pays_on_held_out_episodes(
    name: str, floor: float, trial_returns: Callable[[Any], tuple[float, float]]
) -> None:
    """Before the step nothing can be known; the oracle earns 91."""
    model = make_agent(
        name, gym.make(ENV), preset="quick", seed=0, n_tasks=20, n_steps=50, n_envs=20,
        inner_learning_rate=0.5, adapt_every=None,
    ).learn(40_000)  # fmt: skip
    before, after = trial_returns(model)
    assert before < 10.0
    assert after > floor
