"""PEARL: the order of collection, the gradients, what it remembers, and that it learns."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from torch.distributions import Normal, kl_divergence

from m3po_baselines import PEARL
from m3po_baselines.pearl.collection import CollectionPlan
from m3po_baselines.pearl.task_replay import TaskTransitions
from m3po_bench import make_agent
from m3po_bench.common.soft_actor_critic import Transitions, critic_loss
from m3po_bench.registry import UnknownNameError
from m3po_bench.wrappers import TrialWrapper

ENV = "M3PO/PointFwdBwd-v0"
CHANGING = {"name": "hazard", "rate": 0.2}
Array = NDArray[Any]


def tiny(env: Any = ENV, **kwargs: Any) -> PEARL:
    model: PEARL = make_agent("PEARL", env, preset="tiny", seed=0, **kwargs)
    return model


class Watch(gym.Wrapper[Array, Array, Array, Array]):
    """Keeps the task of every transition, episode by episode."""

    def __init__(self, env: gym.Env[Array, Array]) -> None:
        super().__init__(env)
        self._episodes: list[list[tuple[float, ...]]] = []

    @property
    def episodes(self) -> list[list[tuple[float, ...]]]:
        return [episode for episode in self._episodes if episode]

    def reset(self, **kwargs: Any) -> tuple[Array, dict[str, Any]]:
        self._episodes.append([])
        return self.env.reset(**kwargs)

    def step(self, action: Array) -> Any:
        self._episodes[-1].append(self.env.get_wrapper_attr("task").params)
        return self.env.step(action)


def assert_rewards_are_the_tasks(data: TaskTransitions) -> None:
    """Whether transitions of both tasks of the point, in their order, are what they say."""
    direction = torch.tensor([-1.0, 1.0])[:, None]
    expected = direction * data.next_obs[..., 0] - 0.05 * data.action[..., 0].square()
    torch.testing.assert_close(data.reward, expected, rtol=1e-4, atol=1e-5)


class TestTraining:
    def test_contexts_are_standardised_by_what_was_collected(self) -> None:
        env = gym.make(ENV, max_episode_steps=20)
        model = tiny(env, initial_steps=1, updates_per_iteration=1).learn(60)
        rows = model.replay_buffer.sample(torch.tensor([0, 1]), 20_000).context.flatten(0, 1)
        standard = model.policy.context_normalizer(rows)
        torch.testing.assert_close(standard.mean(0), torch.zeros(8), rtol=0.0, atol=0.1)
        torch.testing.assert_close(standard.std(0), torch.ones(8), rtol=0.1, atol=0.0)

    def test_plays_its_tasks_without_changes_and_without_wasting_a_step(self) -> None:
        env = Watch(gym.make(ENV, schedule=CHANGING, max_episode_steps=20))
        tiny(env, initial_steps=30, posterior_steps=1).learn(170)
        assert [len(episode) for episode in env.episodes] == [20] * 8 + [10]
        assert all(len(set(episode)) == 1 for episode in env.episodes)
        tasks = [episode[0][0] for episode in env.episodes]
        assert tasks[:4] == [-1.0, -1.0, 1.0, 1.0]
        assert tasks[4] == tasks[5]  # prior and posterior of one iteration
        assert tasks[6] == tasks[7]

    def test_is_the_same_whatever_the_envs_schedule(self) -> None:
        """What it learns in does not change, so neither does what it learns."""
        learnt = []
        for schedule in ("episodic", CHANGING):
            env = gym.make(ENV, schedule=schedule, max_episode_steps=20)
            model = tiny(env, posterior_steps=1).learn(100)
            learnt.append(torch.cat([p.flatten() for p in model.policy.parameters()]))
        assert torch.equal(*learnt)

    @pytest.mark.parametrize(("first", "updates"), [(20, 4), (25, 4), (30, 6)])
    def test_a_continued_learn_goes_on_with_an_iteration_or_learns_from_it(
        self, first: int, updates: int
    ) -> None:
        """With 2 updates after each; an iteration has its 10 steps or, uncut, a whole episode."""
        model = tiny(gym.make(ENV, max_episode_steps=20), prior_steps=10).learn(first)
        assert model._n_updates == 2
        model.learn(20, reset_num_timesteps=False)
        assert model._n_updates == updates

    def test_an_iteration_is_learnt_from_also_where_a_callback_stops_at_its_end(self) -> None:
        class Stop(BaseCallback):
            def _on_step(self) -> bool:
                return self.num_timesteps < 20

        whole, parts = (tiny(gym.make(ENV, max_episode_steps=20)) for _ in range(2))
        whole.learn(40)
        parts.learn(40, callback=Stop())
        assert (parts.num_timesteps, parts._n_updates) == (20, 0)
        parts.learn(20, reset_num_timesteps=False)
        assert parts._n_updates == whole._n_updates == 4

    @pytest.mark.parametrize("n_envs", [1, 2])
    def test_each_transition_lands_in_its_tasks_buffers(self, n_envs: int) -> None:
        venv = make_vec_env(ENV, n_envs=n_envs, env_kwargs={"max_episode_steps": 20})
        model = tiny(venv, initial_steps=1, posterior_steps=1, encoder_buffer_size=30)
        model.learn(n_envs * 160)
        assert int(model.replay_buffer.sizes.sum()) == n_envs * 160
        assert int(model.encoder_buffer.sizes.max()) == 30
        for buffer in (model.replay_buffer, model.encoder_buffer):
            assert_rewards_are_the_tasks(buffer.sample(torch.tensor([0, 1]), 500))

    @pytest.mark.parametrize(
        ("posterior_context", "shown"),
        [(False, [20, 40, 60, 60, 80, 80]), (True, [20, 40, 60, 80, 100, 120])],
    )
    def test_z_lasts_an_episode_and_the_encoder_learns_from_the_priors(
        self, posterior_context: bool, shown: list[int]
    ) -> None:
        env = gym.make(ENV, max_episode_steps=20)
        model = tiny(env, initial_steps=1, posterior_steps=1, posterior_context=posterior_context)
        zs, from_prior, sizes = [], [], []

        class Spy(BaseCallback):
            def _on_step(self) -> bool:
                segment = model._segments[0]
                assert segment is not None
                zs.append(model._z[0].tolist())
                from_prior.append(segment.from_prior)
                sizes.append(int(model.encoder_buffer.sizes.sum()))
                return True

        model.learn(120, callback=Spy())
        changes = [i for i in range(1, 120) if zs[i] != zs[i - 1]]
        assert changes == [20, 40, 60, 80, 100]
        assert from_prior[::20] == [True, True, True, False, True, False]
        assert sizes[19::20] == shown

    def test_z_of_the_posterior_follows_from_what_the_encoder_has_of_the_task(self) -> None:
        model = tiny(gym.make(ENV, max_episode_steps=20), initial_steps=1).learn(40)
        with torch.no_grad():
            last: Any = model.policy.encoder.net[-1]
            last.weight.zero_()
            last.bias.copy_(torch.tensor([3.0, -2.0, -20.0, -20.0]))  # sure, whatever it sees
        model.plan = CollectionPlan(2, 0, 1, 1, 1, np.random.default_rng(0))
        model.learn(20, reset_num_timesteps=False)
        assert float((model._z[0] - torch.tensor([3.0, -2.0])).abs().max()) > 0.1
        model.learn(1, reset_num_timesteps=False)
        torch.testing.assert_close(model._z[0], torch.tensor([3.0, -2.0]), atol=1e-2, rtol=0.0)

    def test_an_env_without_tasks_is_one_task(self) -> None:
        model = tiny(gym.make("Pendulum-v1", max_episode_steps=20)).learn(50)
        assert model.train_tasks == (None,)
        assert model.replay_buffer.sizes.tolist() == [50]
        assert model._n_updates == 4

    def test_continuous_tasks_are_drawn_once_with_the_seed(self) -> None:
        pendulum = "M3PO/PendulumRandomParams-v0"
        first, second = (tiny(pendulum, n_train_tasks=5).train_tasks for _ in range(2))
        assert first == second
        assert len({task.params for task in first if task}) == 5
        env = Watch(gym.make(pendulum, schedule="drift", max_episode_steps=20))
        model = tiny(env, n_train_tasks=3, initial_steps=1).learn(60)
        expected = [task.params for task in model.train_tasks if task]
        assert [episode[0] for episode in env.episodes] == expected
        assert all(len(set(episode)) == 1 for episode in env.episodes)

    def test_a_trial_is_in_one_task_and_the_steps_between_its_episodes_are_left_out(self) -> None:
        env = TrialWrapper(gym.make(ENV, max_episode_steps=10), 3)
        model = tiny(env, initial_steps=40).learn(150)  # two trials in each task, and one more
        assert int(model.replay_buffer.sizes.sum()) == 150 - 5 * 2
        data = model.replay_buffer.sample(torch.tensor([0, 1]), 500)
        assert_rewards_are_the_tasks(data)

    def test_a_loaded_agent_keeps_its_tasks(self, tmp_path: Path) -> None:
        model = tiny("M3PO/PendulumRandomParams-v0", n_train_tasks=3)
        model.save(tmp_path / "agent")
        assert PEARL.load(tmp_path / "agent").train_tasks == model.train_tasks


def test_the_encoder_learns_from_the_critics_and_the_bottleneck_alone() -> None:
    """Its gradient in an update is that of the published loss, worked out anew."""
    env = gym.make(ENV, max_episode_steps=20)
    model = tiny(env, initial_steps=1, kl_lambda=0.3, reward_scale=2.0).learn(60)
    policy, tasks, size = model.policy, torch.tensor([0, 1]), model.batch_size
    rng = torch.get_rng_state()
    torch.rand(())  # the size of the context
    context = policy.context_normalizer(model.encoder_buffer.sample(tasks, 16).context)
    belief = policy.encoder(context).product()
    z = belief.sample().repeat_interleave(size, 0)
    data = model.replay_buffer.sample(tasks, size)
    obs, action, next_obs = (x.flatten(0, 1) for x in (data.obs, data.action, data.next_obs))
    batch = Transitions(
        torch.cat([obs, z], -1),
        action,
        2.0 * data.reward.flatten(),
        torch.cat([next_obs, z], -1),
        data.not_terminated.flatten(),
    )
    alpha = policy.log_alpha.detach().exp()
    parts = (policy.critics, policy.critic_targets, policy.actor)
    # Published is the squared error; critic_loss is half of it.
    squared_error = 2.0 * critic_loss(*parts, batch, model.gamma, alpha)
    own = Normal(belief.mean, belief.variance.sqrt())
    bottleneck = 0.3 * kl_divergence(own, Normal(0.0, 1.0)).sum()
    parameters = list(policy.encoder.parameters())
    expected = torch.autograd.grad(squared_error + bottleneck, parameters)
    torch.set_rng_state(rng)
    model._update(tasks)
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(2.0 * parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def play(model: PEARL, env: gym.Env[Any, Any], n_steps: int) -> tuple[list[Any], list[Any]]:
    """Observations of a trial, and the memory after each of them."""
    obs, _ = env.reset(seed=0)
    state, start = None, np.ones(1, bool)
    seen, states = [], []
    for _ in range(n_steps):
        action, state = model.predict(obs[None], state, start, deterministic=True)
        start = np.zeros(1, bool)
        seen.append(obs)
        states.append(state)
        obs, *_ = env.step(action[0])
    return seen, states


def trial(**kwargs: Any) -> tuple[PEARL, Array, list[Any]]:
    """An agent, and what it saw and believed in a trial of two episodes of ten steps."""
    model = tiny(gym.make(ENV, max_episode_steps=20), **kwargs).learn(20)
    env = TrialWrapper(gym.make(ENV, max_episode_steps=10), 2)
    seen, states = play(model, env, 20)
    return model, np.stack(seen), states


class TestMemory:
    def test_belief_is_that_of_all_transitions_of_the_trial(self) -> None:
        model, seen, states = trial()
        assert not states[0][1].any()  # no precision: the prior
        np.testing.assert_array_equal(states[10][1], states[9][1])  # no transition led there
        # Observation, action, reward, next observation; the action and the reward are columns of
        # what they led to.
        rows = [(*seen[i, :3], *seen[i + 1, 3:5], *seen[i + 1, :3]) for i in range(19) if i != 9]
        for count, upto in ((5, 5), (9, 9), (18, 19)):
            with torch.no_grad():
                context = torch.tensor(np.array(rows[:count]), dtype=torch.float32)
                expected = model.policy.infer(context[None])
            np.testing.assert_allclose(states[upto][0], expected.weighted_mean, rtol=1e-4)
            np.testing.assert_allclose(states[upto][1], expected.precision, rtol=1e-4)

    def test_online_z_is_the_mean_of_the_belief(self) -> None:
        _, _, states = trial()
        weighted_mean, precision, z, _ = states[7]
        np.testing.assert_allclose(z, weighted_mean / precision, rtol=1e-5)
        assert not states[0][2].any()

    def test_the_published_z_is_drawn_when_an_episode_begins(self) -> None:
        model, seen, states = trial(belief_update="episode")
        zs = np.stack([state[2][0] for state in states])
        assert (zs[:10] == zs[0]).all()
        assert (zs[10:] == zs[10]).all()
        assert zs[0].all()  # a draw, not the prior's mean
        again = play(model, TrialWrapper(gym.make(ENV, max_episode_steps=10), 2), 20)[1]
        np.testing.assert_array_equal(zs, np.stack([state[2][0] for state in again]))
        # The mean and the deviation of what is drawn at the second episode's start.
        mean, std = states[10][0] / states[10][1], states[10][1] ** -0.5
        assert (np.abs(zs[10] - mean) < 5.0 * std).all()
        draws = [model.predict(seen[10][None], states[9])[1] for _ in range(400)]
        stack = np.stack([draw[2][0] for draw in draws if draw])
        np.testing.assert_allclose(stack.std(0), std[0], rtol=0.2)
        assert (np.abs(stack.mean(0) - mean) < 0.3 * std).all()

    def test_a_belief_may_lose_a_share_with_each_transition(self) -> None:
        model, seen, states = trial(forgetting=0.25)
        before = states[7]
        nothing = (*(np.zeros_like(part) for part in before[:3]), before[3])
        _, alone = model.predict(seen[8], nothing)
        assert alone is not None
        for part in (0, 1):
            expected = 0.75 * before[part] + alone[part]
            np.testing.assert_allclose(states[8][part], expected, rtol=1e-4, atol=1e-5)

    def test_only_the_rows_that_begin_forget(self) -> None:
        model, seen, states = trial()
        both = tuple(np.repeat(part, 2, axis=0) for part in states[4])
        _, after = model.predict(
            np.repeat(seen[5][None], 2, axis=0), both, np.array([True, False]), deterministic=True
        )
        assert after is not None
        assert not after[1][0].any()
        np.testing.assert_allclose(after[1][1], states[5][1][0], rtol=1e-5)


class Deaf(gym.Wrapper[Array, Array, Array, Array]):
    """Has tasks, but does not listen to what it should play."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.env.reset(seed=seed)


class Closed(gym.Wrapper[Array, Array, Array, Array]):
    """Has tasks, and no way to say which to play."""

    def reset(self, *, seed: int | None = None) -> Any:  # type: ignore[override]
        return self.env.reset(seed=seed)


@pytest.mark.parametrize("wrapper", [Deaf, Closed])
def test_says_so_where_tasks_cannot_be_forced(
    wrapper: type[gym.Wrapper[Any, Any, Any, Any]],
) -> None:
    model = tiny(wrapper(gym.make("M3PO/PendulumRandomParams-v0")))
    with pytest.raises(ValueError, match="PEARL trains in tasks of its choice"):
        model.learn(10)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"forgetting": 1.0}, "forgetting=1.0: expected a share"),
        ({"meta_batch": 0}, "meta_batch=0: expected at least 1"),
        ({"posterior_steps": -1}, "posterior_steps=-1: expected at least 0"),
        ({"context_size": 0}, "context_size=0: expected"),
        ({"context_size": (4, 2)}, r"context_size=\(4, 2\): expected"),
        ({"ent_coef": -1.0}, "ent_coef=-1.0: expected a positive number"),
        ({"device": "cuda"}, "device='cuda'"),
    ],
)
def test_names_what_is_out_of_range(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**kwargs)


def test_names_the_nearest_belief_update() -> None:
    with pytest.raises(UnknownNameError, match=r"'steps'; nearest: step"):
        tiny(belief_update="steps")


@pytest.fixture(scope="module")
def learnt() -> list[PEARL]:
    """Three: after so few steps their returns lie far apart, 38 to 78, and differ by machine."""
    env = gym.make(ENV, schedule="hazard")
    agents = (make_agent("PEARL", env, preset="quick", seed=seed) for seed in range(3))
    return [cast(PEARL, agent.learn(3000)) for agent in agents]


def returns_by_episode(
    models: list[PEARL], belief_update: str, n_trials: int = 20, n_episodes: int = 3
) -> Array:
    """Mean return of each episode of trials in one task, over the agents."""
    totals = np.zeros(n_episodes)
    for model, seed in itertools.product(models, range(n_trials)):
        model.policy.belief_update = belief_update
        env = TrialWrapper(gym.make(ENV, schedule="episodic"), n_episodes)
        obs, info = env.reset(seed=seed)
        state, start, done = None, np.ones(1, bool), False
        while not done:
            action, state = model.predict(obs[None], state, start, deterministic=True)
            start = np.zeros(1, bool)
            obs, reward, _, done, info = env.step(action[0])
            totals[info["inner_episode"]] += float(reward)
    return totals / n_trials / len(models)


@pytest.mark.slow
def test_learns_to_find_out_within_an_episode(learnt: list[PEARL]) -> None:
    """Memoryless SAC earns about 0, who knows the task 85."""
    assert returns_by_episode(learnt, "step", n_episodes=1)[0] > 40.0


@pytest.mark.slow
def test_two_episodes_of_adaptation_improve_the_third(learnt: list[PEARL]) -> None:
    """As published: z from the prior earns nothing, z from the posterior nearly all there is."""
    first, _, third = returns_by_episode(learnt, "episode")
    assert first < 30.0
    assert third > first + 30.0
