"""Hot paths against a peer in the same process: ratios, never seconds.

The limits have slack; ``tox -e bench`` prints the numbers.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from stable_baselines3 import SAC

import m3po_bench
from m3po_bench.common.soft_actor_critic import cpp_compiler
from m3po_bench.m3po.branched_rollouts import branch
from m3po_bench.m3po.m3po import M3PO


def agent_with(**settings: Any) -> M3PO:
    model: M3PO = m3po_bench.make_agent(
        "M3PO",
        "M3PO/HalfCheetahFwdBwd-v0",
        seed=0,
        learning_starts=250,
        model_first_fit=10,
        gradient_steps=0,
        **settings,
    )
    return model.learn(250)


@pytest.fixture(scope="module")
def agent() -> M3PO:
    return agent_with()


_CAPABILITIES: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
needs_bfloat16 = pytest.mark.skipif(
    not any(_CAPABILITIES.get(name) for name in ("avx512_bf16", "amx_bf16")),
    reason="a processor without instructions for bfloat16",
)
needs_compiler = pytest.mark.skipif(cpp_compiler() is None, reason="without a C++ compiler")


@pytest.mark.parametrize(
    ("fast", "limit"),
    [
        pytest.param(False, 0.85, id="default"),
        pytest.param(True, 0.65, id="bfloat16 compiled", marks=(needs_bfloat16, needs_compiler)),
    ],
)
def test_a_policy_update_is_faster_than_sb3s(
    agent: M3PO, ratio: Callable[..., float], fast: bool, limit: float
) -> None:
    """Same batch, the same layers on wider features; sampling and target update included."""
    env = gym.make("M3PO/HalfCheetahFwdBwd-v0")
    sac = SAC("MlpPolicy", env, learning_starts=10_000, seed=0).learn(300)
    torch.set_num_threads(1)
    model = agent
    if fast:
        model = agent_with(bfloat16=True, torch_compile=True)

    def ours() -> None:
        model._update_policy(4)

    def peer() -> None:
        sac.train(gradient_steps=4, batch_size=model.batch_size)

    ours()  # compiles
    assert ratio(ours, peer, rounds=40) < limit


@needs_compiler
@pytest.mark.parametrize("bfloat16", [False, pytest.param(True, marks=needs_bfloat16)])
@pytest.mark.parametrize("actor_every", [1, 2])
@pytest.mark.parametrize("batch_size", [128, 256])
def test_a_compiled_update_keeps_up_with_sbxs(
    ratio: Callable[..., float], batch_size: int, actor_every: int, bfloat16: bool
) -> None:
    """The same batch, layers and share of actor updates; where SBX is, as in ``tox -e bench``.

    Its networks see 25 inputs for M3PO's 81, and its critics have no layer norms.
    """
    sbx = pytest.importorskip("sbx")
    same: dict[str, Any] = {"batch_size": batch_size, "actor_every": actor_every}
    model = agent_with(bfloat16=bfloat16, torch_compile=True, **same)
    sac = sbx.SAC(
        "MlpPolicy",
        gym.make("M3PO/HalfCheetahFwdBwd-v0"),
        learning_starts=10_000,
        batch_size=batch_size,
        policy_delay=actor_every,
        policy_kwargs={"net_arch": [256, 256]},
        seed=0,
    ).learn(300)
    torch.set_num_threads(1)

    def ours() -> None:
        model._update_policy(16)

    def peer() -> None:
        sac.train(gradient_steps=16, batch_size=batch_size)

    ours()  # compiles
    peer()
    assert ratio(ours, peer, rounds=40) < 2.0


@needs_bfloat16
def test_an_update_in_bfloat16_is_faster(ratio: Callable[..., float]) -> None:
    """At a batch of 256: with AMX, 128 rows are over before the conversion has paid."""
    plain = agent_with(batch_size=256)
    fast = m3po_bench.make_agent("M3PO", plain.get_env(), seed=0, bfloat16=True)
    (batch,) = plain._policy_batches(1)

    def ours() -> None:
        for _ in range(4):
            fast.soft_actor_critic.update(batch)

    def in_float32() -> None:
        for _ in range(4):
            plain.soft_actor_critic.update(batch)

    assert ratio(ours, in_float32, rounds=40) < 0.95


def test_acting_costs_no_more_than_a_few_of_sb3s_calls(
    agent: M3PO, ratio: Callable[..., float]
) -> None:
    """Two GRUs and a policy against a policy alone."""
    sac = SAC("MlpPolicy", gym.make("M3PO/HalfCheetahFwdBwd-v0"), seed=0)
    obs = np.zeros((1, 25))
    start = np.zeros(1, bool)
    _, state = agent.predict(obs)

    def ours() -> None:
        for _ in range(50):
            agent.predict(obs, state, start)

    def peer() -> None:
        for _ in range(50):
            sac.predict(obs)

    assert ratio(ours, peer) < 6.0


def products(layers: list[tuple[int, int, int, int]]) -> Callable[[], None]:
    """The matrix products of (networks, rows, inputs, outputs), and nothing else."""
    pairs = [(torch.randn(n, rows, a), torch.randn(n, a, b)) for n, rows, a, b in layers]

    def run() -> None:
        for left, right in pairs:
            torch.bmm(left, right)

    return run


def layers_of(n: int, rows: int, *widths: int) -> list[tuple[int, int, int, int]]:
    return [(n, rows, a, b) for a, b in pairwise(widths)]


@pytest.mark.parametrize("kind", ["model", "with policy", "trusted"])
def test_imagined_steps_cost_little_more_than_their_products(
    agent: M3PO, ratio: Callable[..., float], benchmark: BenchmarkFixture, kind: str
) -> None:
    """One round of rollouts, 10,000 rows: members, histories, and in D_model where the policy acts.

    Encoders, ensembles of 5 and actor have the default sizes; each row passes one member, and all
    of them where rollouts end by how far these are apart.
    The faster a processor multiplies, the more all else counts: 1.5 to 1.9 on an AMD, 1.9 to 2.4 on
    an Intel Xeon with AVX-512.
    """
    policy, model, n = agent.policy, agent.policy.meta_model, 10_000
    length, trust = (2, 1.0 - 1e-6) if kind == "trusted" else (1, 1.0)
    starts, (obs, act, state) = agent.replay_buffer.sample(n), (17, 6, 32)
    torch.set_num_threads(1)
    layers = [
        *layers_of(5, n // 5, obs + act + state, 200, 200, 2 * obs),
        *layers_of(5, n // 5, 2 * obs + act + state, 128, 128, 2),
        *layers_of(2, n, 2 * obs + act + 1, 64, 64, 3 * state),
        *layers_of(2, n, state, 3 * state),
        *(layers_of(1, n, obs + 2 * state, 256, 256, 2 * act) if kind != "model" else []),
        *(layers_of(5, n, obs + act + state, 200, 200, 2 * obs) if kind == "trusted" else []),
    ] * length
    assert (model.obs_dim, model.action_dim, model.branch_dim, model.dynamics.n) == (17, 6, 32, 5)

    def ours() -> None:
        if kind != "model":
            for step in branch(policy, starts, length, trust=trust):
                agent.imagined.add(step.transitions(policy))
        else:
            policy.imagine(starts.obs, starts.state, starts.action)

    # Nearly all rollouts go on, lest what is left out is taken for speed.
    n_steps = sum(len(step.rows) for step in branch(policy, starts, length, trust=trust))
    assert n_steps > 0.95 * n * length
    found = ratio(ours, products(layers), rounds=12)
    benchmark.extra_info["steps_per_second"] = n_steps * benchmark.extra_info["rounds_per_second"]
    assert found < 2.7


def test_100_000_steps_of_a_cheetah_fit_into_2_gb() -> None:
    """Peak of a process of its own that keeps them, fits to them and branches off them."""
    program = """
import resource, m3po_bench, torch
model = m3po_bench.make_agent("M3PO", "M3PO/HalfCheetahFwdBwd-v0", seed=0, learning_starts=200,
                              model_first_fit=5, model_fit_steps=5, gradient_steps=1).learn(205)
stored, n = model.replay_buffer.state_dict(), 100_000
for name, value in stored.items():
    if value.shape[:1] == (1024,):
        stored[name] = value[:200].repeat(n // 200, *[1] * (value.dim() - 1))
stored["sequence"] = torch.arange(n)[:, None] // 200
stored["counters"] = torch.tensor([n, n // 200])
model.replay_buffer.load_state_dict(stored)
model.policy.refresh_states(model.replay_buffer)
model._next_fit = 0
model.learn(2, reset_num_timesteps=False)
assert len(model.replay_buffer) > n
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2_000_000  # in kB
