"""Does M3PO's memory hold the motion of the pier's blocks, which is not observed?

``python results/pier_blocks.py`` takes the zoo's agent, ``python results/pier_blocks.py MODEL.zip``
one of a finished run. The agent plays the 40 test episodes of HalfCheetahPier. Nets predict height
and velocity of the block under the cheetah, from what a step shows (observation, previous action
and reward) and from that and the agent's history state; each episode is predicted by a net that was
fitted to others, 32 of them. Printed is R^2, the share of the variance that is explained.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from m3po_bench import M3PO, load_pretrained
from m3po_envs.pier import BLOCKS, N_POSITIONS

ENV = "M3PO/HalfCheetahPier-v0"
FOLDS = 5
CENTRE_X = 17
"""Column of the observation."""
UPDATES, BATCH = 3_000, 256
FAR = 4.0
"""Standard deviations beyond which an input says no more: nets are lost far from what they saw."""

Array = NDArray[np.float32]


def block_below(env: gym.Env[Any, Any], x: float) -> tuple[float, float]:
    """Height (m) and velocity (m/s) of the block at ``x``."""
    ends = [centre + half_length for centre, half_length in BLOCKS]
    at = N_POSITIONS + min(int(np.searchsorted(ends, x)), len(BLOCKS) - 1)
    data = env.unwrapped.data  # type: ignore[attr-defined]
    return float(data.qpos[at]), float(data.qvel[at])


def play(model: Any) -> tuple[list[Array], list[Array], list[Array]]:
    """What each episode's steps show, the history states at them and the block's motion."""
    env = gym.make(ENV, split="test")
    episodes: tuple[list[Array], list[Array], list[Array]] = ([], [], [])
    for episode in range(len(env.unwrapped.episodes)):  # type: ignore[attr-defined]
        obs, _ = env.reset(options={"episode": episode})
        steps: list[tuple[Any, Any, Any]] = []
        state, first, over = None, [True], False
        while not over:
            action, state = model.predict(obs, state, episode_start=first, deterministic=True)
            steps.append((obs, state[0][0], block_below(env, obs[CENTRE_X])))
            obs, _, terminated, truncated, _ = env.step(action)
            first, over = [False], terminated or truncated
        columns = (np.array(column, np.float32) for column in zip(*steps, strict=True))
        for found, column in zip(episodes, columns, strict=True):
            found.append(column)
    return episodes


def explained(inputs: list[Array], targets: list[Array]) -> Array:
    """R^2 of each target, shape (n_targets,); each episode is predicted by a net without it."""
    torch.manual_seed(0)
    predicted: dict[int, Array] = {}
    for fold in range(FOLDS):
        tested = range(fold, len(inputs), FOLDS)
        fitted = [i for i in range(len(inputs)) if i not in tested]
        x, y = (np.concatenate([of[i] for i in fitted]) for of in (inputs, targets))
        answer = fit(x, y)
        for i in tested:
            predicted[i] = answer(inputs[i])
    truth = np.concatenate(targets)
    missed = np.concatenate([predicted[i] for i in range(len(inputs))]) - truth
    shares: Array = 1 - np.square(missed).mean(0) / truth.var(0)
    return shares


def fit(x: Array, y: Array) -> Callable[[Array], Array]:
    """A net that answers with y, shape (n, n_targets), to x, shape (n, n_inputs)."""
    net = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], 64), torch.nn.ReLU(),
        torch.nn.Linear(64, 64), torch.nn.ReLU(),
        torch.nn.Linear(64, y.shape[1]),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2)
    x_mean, x_scale, y_mean, y_scale = x.mean(0), x.std(0) + 1e-6, y.mean(0), y.std(0)

    def scaled(of: Array) -> torch.Tensor:
        return torch.as_tensor((of - x_mean) / x_scale).clip(-FAR, FAR)

    inputs, targets = scaled(x), torch.as_tensor((y - y_mean) / y_scale)
    for _ in range(UPDATES):
        rows = torch.randint(len(inputs), (BATCH,))
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(net(inputs[rows]), targets[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    @torch.no_grad()
    def answer(of: Array) -> Array:
        answered: Array = net(scaled(of)).numpy() * y_scale + y_mean
        return answered

    return answer


def main() -> None:
    """Print both shares."""
    torch.set_num_threads(1)
    model = M3PO.load(sys.argv[1]) if sys.argv[1:] else load_pretrained("M3PO", ENV)
    shown, remembered, moved = play(model)
    both = [np.concatenate(pair, axis=1) for pair in zip(shown, remembered, strict=True)]
    for name, inputs in (("what a step shows", shown), ("with the history state", both)):
        height, velocity = explained(inputs, moved)
        print(f"{name}: R^2 of the height {height:.2f}, of the velocity {velocity:.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
