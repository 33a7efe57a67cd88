"""GrBAL and ReBAL: what one step of adaptation is, and that it is worth something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from m3po_baselines import GrBAL
from m3po_baselines.learning_to_adapt.adaptive_model import (
    AdaptiveModel,
    Heads,
    Observed,
)
from m3po_baselines.learning_to_adapt.fitting import ModelFitter, whole_sequences
from m3po_baselines.learning_to_adapt.given_reward import GivenReward
from m3po_baselines.learning_to_adapt.grbal import CONTEXT_RATE, GradientModel
from m3po_baselines.learning_to_adapt.rebal import RecurrentModel
from m3po_bench import make_agent
from m3po_bench.common.history_policy import keep_where
from m3po_bench.common.sequence_replay import SequenceReplay
from m3po_bench.leaderboard.evaluation import evaluate
from m3po_bench.wrappers import TrialWrapper, layout_of

POINT = "M3PO/PointFwdBwd-v0"


def gradient_model(adapt: bool = True, rate: float = 0.1, **kwargs: Any) -> GradientModel:
    settings: dict[str, Any] = {"support": 8, "query": 8, "hidden": [32], "reward_hidden": [32]}
    settings |= kwargs
    return GradientModel(
        1, 1, adapt, rate, settings.pop("learn_inner_rate", False),
        settings.pop("support"), settings.pop("query"), **settings,
    )  # fmt: skip


def fitted(
    model: AdaptiveModel, data: SequenceReplay, epochs: int, rate: float
) -> dict[str, float]:
    torch.manual_seed(0)
    return ModelFitter(model, rate, 10, epochs, 0.99).fit(data)[1]


def test_inner_step_is_one_gradient_step_on_the_errors_of_each_env(
    random_observed: Callable[..., Observed],
) -> None:
    torch.manual_seed(0)
    model = gradient_model(rate=0.3)
    support, query = random_observed(3, 8, 0), random_observed(3, 5, 1)
    with torch.no_grad():
        found = model.errors(model.adapted(support), query)
    for env in range(3):
        theta = [p.detach()[0].clone().requires_grad_() for p in model._theta()]

        def errors(p: list[Tensor], data: Observed) -> tuple[Tensor, Tensor]:
            inputs = torch.cat([data.obs, data.action], -1)
            change = F.relu(inputs @ p[0] + p[1]) @ p[2] + p[3]
            inputs = torch.cat([inputs, data.next_obs], -1)
            reward = F.relu(inputs @ p[4] + p[5]) @ p[6] + p[7]
            miss = (change - (data.next_obs - data.obs)).square().mean(-1)
            return miss, (reward[..., 0] - data.reward).square()

        own = Observed(*(x[env] for x in support))
        gradients = torch.autograd.grad(sum(e.mean() for e in errors(theta, own)), theta)  # type: ignore[arg-type]
        adapted = [p - 0.3 * g for p, g in zip(theta, gradients, strict=True)]
        expected = errors(adapted, Observed(*(x[env] for x in query)))
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours[env], theirs, rtol=1e-4, atol=1e-5)


def test_a_context_is_part_of_the_input_and_steps_like_every_parameter(
    random_observed: Callable[..., Observed],
) -> None:
    """A model of so many more inputs, shown the contexts that the inner step leads to."""
    torch.manual_seed(0)
    model = gradient_model(rate=0.3, context=2)
    for context in model.contexts:
        nn.init.normal_(context)
    support, query = random_observed(3, 8, 0), random_observed(3, 5, 1)
    theta = [p.detach().expand(3, *p.shape[1:]).requires_grad_() for p in model._theta()]

    def errors(p: list[Tensor], data: Observed) -> tuple[Tensor, Tensor]:
        both = [context.expand(-1, data.obs.shape[1], -1) for context in p[8:]]
        inputs = torch.cat([data.obs, data.action, both[0]], -1)
        change = model.dynamics.run(p[:4], inputs)
        inputs = torch.cat([data.obs, data.action, data.next_obs, both[1]], -1)
        reward = model.reward.run(p[4:8], inputs)
        miss = (change - (data.next_obs - data.obs)).square().mean(-1)
        return miss, (reward[..., 0] - data.reward).square()

    gradients = torch.autograd.grad(sum(errors(theta, support)).mean(1).sum(), theta)  # type: ignore[union-attr]
    rates = 8 * [0.3] + 2 * [CONTEXT_RATE]
    adapted = [p - a * g for p, a, g in zip(theta, rates, gradients, strict=True)]
    with torch.no_grad():
        found = model.errors(model.adapted(support), query)
        torch.testing.assert_close(found, errors(adapted, query), rtol=1e-4, atol=1e-5)


def test_outer_gradient_goes_through_the_inner_step(
    random_observed: Callable[..., Observed],
) -> None:
    torch.manual_seed(0)
    model = gradient_model(rate=0.5, activation="silu", learn_inner_rate=True, context=2).double()
    batch = Observed(*(x.double() for x in random_observed(4, 16)))
    model.loss(batch).backward()  # type: ignore[no-untyped-call]
    step = 1e-6
    weights = model.dynamics.layers[0].weight, model.reward.layers[1].bias
    for parameter in (*weights, *model.contexts):
        assert isinstance(parameter, Tensor)
        with torch.no_grad():
            parameter.view(-1)[0] += step
            above = model.loss(batch)
            parameter.view(-1)[0] -= 2 * step
            slope = (above - model.loss(batch)) / (2 * step)
            parameter.view(-1)[0] += step
        assert parameter.grad is not None
        assert parameter.grad.view(-1)[0].item() == pytest.approx(slope.item(), rel=1e-4)
    assert model.log_rates.grad is not None
    assert model.log_rates.grad.abs().min() > 0


def test_an_empty_memory_changes_nothing_and_a_short_one_counts_alone(
    random_observed: Callable[..., Observed],
) -> None:
    torch.manual_seed(0)
    model, query = gradient_model(), random_observed(2, 5, 1)
    plain = gradient_model(adapt=False)
    plain.load_state_dict(model.state_dict())
    few = random_observed(2, 3)
    memory = model.empty(2)
    for t in range(3):
        memory = model.remember(memory, Observed(*(x[:, t] for x in few)))
    with torch.no_grad():
        before = model.errors(model.adapted(model.empty(2)), query)
        torch.testing.assert_close(before, plain.errors(plain.adapted(memory), query))
        after = model.errors(model.adapted(memory), query)
        torch.testing.assert_close(after, model.errors(model.adapted(few), query))
        assert not torch.allclose(before[0], after[0])


def test_windows_end_with_their_sequence(hidden_signs: Callable[..., SequenceReplay]) -> None:
    torch.manual_seed(0)
    model = gradient_model(support=4, query=4)
    data, _ = whole_sequences(hidden_signs(4, steps=10))
    batch = model.batch(data, 500)
    assert batch.weight.shape == (500, 8)
    for i in range(7):
        both = (batch.weight[:, i] * batch.weight[:, i + 1]) > 0
        torch.testing.assert_close(batch.next_obs[both, i], batch.obs[both, i + 1])
    assert (batch.weight[:, 4] == 1).all()  # the present always is
    assert (batch.weight[:, :4].sum(1) == 0).any()
    assert (batch.weight.sum(1) == 8).any()


def test_adaptation_lowers_the_error_on_held_out_sequences(
    hidden_signs: Callable[..., SequenceReplay],
) -> None:
    torch.manual_seed(0)
    nets: dict[str, Any] = {"hidden": [32, 32], "reward_hidden": [32, 32], "activation": "silu"}
    errors = fitted(gradient_model(**nets), hidden_signs(30), epochs=60, rate=5e-3)
    assert errors["query_obs_error_after"] < 0.4 * errors["query_obs_error_before"]
    assert errors["query_reward_error_after"] < 0.7 * errors["query_reward_error_before"]
    torch.manual_seed(0)
    plain = gradient_model(adapt=False, **nets)
    without = fitted(plain, hidden_signs(30), epochs=20, rate=5e-3)
    assert without["query_error_after"] == without["query_error_before"]
    assert without["query_error_after"] > 1.5 * errors["query_error_after"]


def test_recurrent_state_lowers_the_error_on_held_out_sequences(
    hidden_signs: Callable[..., SequenceReplay],
) -> None:
    torch.manual_seed(0)
    model = RecurrentModel(1, 1, state_dim=8, embedding=16, hidden=[32], reward_hidden=[32])
    errors = fitted(model, hidden_signs(30), epochs=100, rate=1e-2)
    assert errors["query_obs_error_after"] < 0.3 * errors["query_obs_error_before"]
    assert errors["query_reward_error_after"] < 0.6 * errors["query_reward_error_before"]


def test_recurrent_training_sees_the_states_that_acting_will(
    random_observed: Callable[..., Observed],
) -> None:
    torch.manual_seed(0)
    model = RecurrentModel(1, 1, state_dim=4, embedding=8, hidden=[16], reward_hidden=[16])
    batch = random_observed(3, 6)
    batch.weight[0, 2] = batch.weight[1, :2] = 0.0  # seams between episodes of a trial
    batch.weight[2, 4:] = 0.0  # a shorter one
    memory, total = model.empty(3), torch.zeros(())
    for t in range(6):
        now = Observed(*(x[:, t] for x in batch))
        errors = model.errors(model.adapted(memory), Observed(*(x[:, None] for x in now)))
        total = total + (sum(errors)[:, 0] * now.weight).sum()  # type: ignore[index]
        memory = keep_where(now.weight > 0, model.remember(memory, now), memory)
    torch.testing.assert_close(model.loss(batch), total / batch.weight.sum())


def test_fitting_stops_once_the_rolling_validation_loss_rises(
    monkeypatch: pytest.MonkeyPatch, hidden_signs: Callable[..., SequenceReplay]
) -> None:
    def epochs(*losses: float) -> float:
        left = iter(losses)
        monkeypatch.setattr(ModelFitter, "_validation_loss", lambda *_: next(left))
        fitter = ModelFitter(gradient_model(adapt=False), 1e-3, 10, 6, persistence=0.5)
        return fitter.fit(hidden_signs(8, steps=10))[1]["epochs"]

    assert epochs(1.0, 0.9, 0.8, 0.7, 0.6, 0.5) == 6  # all that are allowed
    assert epochs(-0.1, -0.2, -0.3, -0.4, -0.5, -0.6) == 6
    assert epochs(1.0, 0.5, 0.8, 9.0) == 4  # rolling: 1.25, 0.875, 0.8375, then above
    assert epochs(-1.0, -1.1, -0.5) == 3  # rolling: -0.75, -0.925, then above


def test_a_return_ends_with_the_episode_and_takes_the_given_reward() -> None:
    model = gradient_model()
    heads = Heads(
        dynamics=lambda x: torch.ones(*x.shape[:2], 1),
        reward=lambda x: x[..., 2:3],  # the next observation
    )
    plans, obs = torch.zeros(2, 4, 3, 1), torch.tensor([[0.0], [10.0]]) / 4
    torch.testing.assert_close(
        model.returns(heads, obs, plans), torch.tensor([[6.0], [13.5]]).expand(2, 4)
    )
    model.terminates.fill_(True)
    last = model.termination.layers[-1]
    with torch.no_grad():
        last.weight.zero_()  # type: ignore[operator]
        last.bias.fill_(50.0)  # type: ignore[operator]
    torch.testing.assert_close(
        model.returns(heads, obs, plans), torch.tensor([[1.0], [3.5]]).expand(2, 4)
    )
    given = model.returns(heads, obs, plans, lambda o, a, after: 2.0 * after[..., 0])
    torch.testing.assert_close(given, torch.tensor([[2.0], [7.0]]).expand(2, 4))


def trained(name: str, env: Any = POINT, steps: int = 110, **kwargs: Any) -> Any:
    return make_agent(name, env, preset="tiny", seed=0, **kwargs).learn(steps)


@pytest.mark.parametrize("name", ["GrBAL", "ReBAL"])
def test_memory_of_one_env_does_not_touch_its_neighbours(name: str) -> None:
    model = trained(name, exploration=0.5)
    env = gym.make(POINT)
    rows = [env.reset(seed=seed)[0] for seed in range(3)]
    for t in range(3):
        for i in range(3):
            rows.append(env.step(np.array([np.sin(3.0 * t + i)]))[0])
    seen = np.stack(rows).reshape(4, 3, -1)
    seen[1:, :, -1] = 0.0
    starts = np.zeros((4, 3), bool)
    starts[0] = starts[2, 1] = True
    state, together = None, []
    for obs, start in zip(seen, starts, strict=True):
        action, state = model.predict(obs, state, start, deterministic=True)
        together.append(action)
    for i in range(3):
        own: tuple[np.ndarray, ...] | None = None
        for t in range(4):
            passed = own
            kept = None if passed is None else [np.array(x) for x in passed]
            start = starts[t, i : i + 1]
            action, own = model.predict(seen[t, i], passed, start, deterministic=True)
            np.testing.assert_allclose(action, together[t][i], rtol=1e-5, atol=1e-6)
            for before, after in zip(kept or (), passed or (), strict=True):
                np.testing.assert_array_equal(before, after)  # what was passed in stays


@pytest.mark.parametrize("name", ["GrBAL", "ReBAL", "GHP-MDP"])
def test_memory_is_that_of_the_model_as_it_is_after_a_fit(name: str) -> None:
    model = trained(name, steps=120)  # fits at 50, 100; 20 steps into the second episode
    remembered = [np.array(x) for x in model._agent_state]
    model._refresh_memory()
    for old, same in zip(remembered, model._agent_state, strict=True):
        np.testing.assert_allclose(old, same, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(1.5)
    model._refresh_memory()
    changed = not np.allclose(remembered[0], model._agent_state[0])
    assert changed == (name != "GrBAL")  # GrBAL remembers transitions as they were


def test_memory_skips_the_seam_between_inner_episodes() -> None:
    model = trained("GrBAL")
    env = TrialWrapper(gym.make(POINT), 2)
    obs, _ = env.reset(seed=0)
    state, start, weights = None, np.ones(1, bool), []
    for _ in range(103):
        action, state = model.predict(obs[None], state, start, deterministic=True)
        weights.append(float(np.sum(state[5])))
        reward_memory = np.array(state[2])
        start = np.zeros(1, bool)
        obs, *_ = env.step(action[0])
        if obs[-1] > 0.5:
            _, after = model.predict(obs[None], state, start, deterministic=True)
            np.testing.assert_array_equal(after[2], reward_memory)
    assert weights[:6] == [0.0, 1.0, 2.0, 3.0, 4.0, 4.0]
    assert weights[-1] == 4.0


def test_exploration_holds_an_action_for_a_plan_and_only_while_collecting() -> None:
    model = trained("GrBAL", exploration=1.0)
    plain = trained("GrBAL")
    plain.set_parameters(model.get_parameters())
    obs, _ = gym.make(POINT).reset(seed=0)

    def actions(agent: Any, deterministic: bool) -> list[float]:
        state, found = None, []
        for _ in range(7):
            action, state = agent.predict(obs, state, deterministic=deterministic)
            found.append(float(action[0]))
        return found

    held = actions(model, deterministic=False)
    horizon = model.policy.planner.horizon
    assert len(set(held[:horizon])) == 1
    assert len(set(held)) == 3
    assert actions(model, deterministic=True) == actions(plain, deterministic=True)
    assert len(set(actions(plain, deterministic=False))) > 3


def test_given_reward_is_the_envs_and_needs_what_it_depends_on() -> None:
    env = gym.make(POINT, visibility="oracle")
    given = GivenReward(POINT, {"visibility": "oracle"}, layout_of(env))
    obs, _ = env.reset(seed=0)
    for _ in range(30):
        action = env.action_space.sample()
        after, reward, *_ = env.step(action)
        rows = (torch.as_tensor(x, dtype=torch.float32)[None, None] for x in
                (obs[:3], action, after[:3]))  # fmt: skip
        assert given.of(obs[None])(*rows).item() == pytest.approx(float(reward), abs=1e-5)
        obs = after
    with pytest.raises(ValueError, match="depends on the task"):
        trained("GrBAL", reward_source="env")
    trained("GrBAL", "M3PO/PointActuatorFault-v0", steps=60, reward_source="env")
    with pytest.raises(ValueError, match="no vectorised reward"):
        trained("GrBAL", "Pendulum-v1", reward_source="env")


def test_the_dynamics_are_not_shown_the_task_that_the_reward_is_given() -> None:
    model = trained("GrBAL-EnvReward", gym.make(POINT, visibility="oracle"), steps=60)
    assert model.policy.model.obs_dim == 3
    told = trained("GrBAL", gym.make(POINT, visibility="oracle"), steps=60)
    assert told.policy.model.obs_dim == 4


@pytest.mark.parametrize("name", ["GrBAL", "ReBAL"])
def test_diagnostics_of_held_out_episodes(name: str) -> None:
    model = trained(name)
    envs = [gym.make(POINT, split="test") for _ in range(2)]
    found = model.diagnostics(evaluate(model, envs, range(2)))
    assert {"model/query_error_before", "model/query_error_after"} <= set(found)
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"planner": "cme"}, "unknown planner 'cme'; nearest: cem"),
        ({"reward_source": "true"}, "unknown reward_source 'true'"),
        ({"fit_every": 0}, "fit_every=0: expected at least 1"),
        ({"support": 0}, "support=0: expected at least 1"),
        ({"persistence": 1.0}, "persistence=1.0"),
        ({"exploration": 2.0}, "exploration=2.0"),
        ({"inner_learning_rate": 0.0}, "adapt=False switches"),
        ({"policy_kwargs": {"context": -1}}, "context=-1: expected a width"),
        ({"device": "cuda"}, "device='cuda'"),
        (
            {"buffer_size": 4999},
            "buffer_size=4999 in 1 envs: expected room for",
        ),
    ],
)
def test_errors_name_what_was_given(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GrBAL("MlpPolicy", POINT, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "floor"), [("GrBAL", 30.0), ("ReBAL", 20.0)])
def test_learns_to_follow_a_hidden_direction(
    name: str, floor: float, online_return: Callable[[Any], float]
) -> None:
    """No agent without memory can expect more than about 1; full force always, 85."""
    env = gym.make(POINT, schedule="hazard")
    model = make_agent(name, env, preset="quick", seed=0).learn(3000)
    assert online_return(model) > floor
    held_out = [gym.make(POINT, schedule="hazard", split="test") for _ in range(20)]
    found = model.diagnostics(evaluate(model, held_out, range(20)))
    assert found["model/query_error_after"] < 0.97 * found["model/query_error_before"]
