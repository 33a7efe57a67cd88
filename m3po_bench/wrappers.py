"""Observation columns that adapting agents need, and the layout that names them.

SB3's ``predict`` never passes the previous action, the previous reward or the start of an inner
episode, so they travel in the observation. ``ObservationLayout`` says which columns are which, so
that an agent without memory can drop them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, SupportsFloat, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Array = NDArray[Any]

OBSERVATION = "observation"
TASK = "task"
TASK_CHANGED = "task_changed"
PREVIOUS_ACTION = "previous_action"
PREVIOUS_REWARD = "previous_reward"
FIRST_STEP = "first_step"
HISTORY_BLOCKS = (PREVIOUS_ACTION, PREVIOUS_REWARD, FIRST_STEP)


@dataclass(frozen=True)
class ObservationLayout:
    """Named blocks of columns of a flat observation, from left to right.

    Attributes:
        blocks: (name, width) of each block.
    """

    blocks: tuple[tuple[str, int], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The blocks' names."""
        return tuple(name for name, _ in self.blocks)

    @property
    def width(self) -> int:
        """Number of columns."""
        return sum(width for _, width in self.blocks)

    @property
    def has_history(self) -> bool:
        """Whether previous action, previous reward and first-step flag are all there."""
        return set(HISTORY_BLOCKS) <= set(self.names)

    def columns(self, *names: str) -> NDArray[np.int64]:
        """Indices of the columns of the named blocks, in the order of the names.

        Raises:
            KeyError: If there is no such block.
        """
        start, found = 0, {}
        for name, width in self.blocks:
            found[name] = np.arange(start, start + width)
            start += width
        missing = [name for name in names if name not in found]
        if missing:
            raise KeyError(f"no block {missing[0]!r} in an observation of {self.names}")
        return np.concatenate([found[name] for name in names] or [np.arange(0)])

    @property
    def memoryless_columns(self) -> NDArray[np.int64]:
        """Columns of everything but the history blocks: what an agent without memory may see."""
        return self.columns(*(name for name in self.names if name not in HISTORY_BLOCKS))

    def with_blocks(self, *blocks: tuple[str, int]) -> ObservationLayout:
        """This layout with further blocks on its right."""
        return ObservationLayout(self.blocks + blocks)

    def with_history(self, action_dim: int) -> ObservationLayout:
        """This layout with the three history blocks on its right."""
        history = (PREVIOUS_ACTION, action_dim), (PREVIOUS_REWARD, 1), (FIRST_STEP, 1)
        return self.with_blocks(*history)


def layout_of(env: Any) -> ObservationLayout:
    """The layout of a Gymnasium env or SB3 VecEnv; one block where the env names none.

    Raises:
        ValueError: If observations are not flat vectors, or a wrapper around
            ``PreviousActionReward`` gave them another width.
    """
    space, found = env.observation_space, None
    if hasattr(env, "env_method"):  # an SB3 VecEnv
        # A worker that is asked for what is not there dies.
        if env.has_attr("observation_layout"):
            found = env.get_attr("observation_layout")[0]
    elif env.has_wrapper_attr("observation_layout"):
        found = env.get_wrapper_attr("observation_layout")
    width = int(check_flat(space).shape[0])
    if found is not None and found.width == width:
        return cast(ObservationLayout, found)
    if found is not None and found.has_history:
        raise ValueError(
            f"observations of {width} columns, but {found.width} of {dict(found.blocks)}: wrappers "
            "that change the observation go inside PreviousActionReward"
        )
    return ObservationLayout(((OBSERVATION, width),))


def check_flat(space: spaces.Space[Any]) -> spaces.Box:
    """Return ``space`` if it is a flat Box.

    Raises:
        ValueError: If it is anything else.
    """
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ValueError(
            f"expected a flat Box (one axis), got {space}; flatten it first, "
            "with gymnasium.wrappers.FlattenObservation for instance"
        )
    return space


def extended_space(space: spaces.Box, low: Array, high: Array) -> spaces.Box:
    """``space`` with further columns of the given bounds; of whole numbers, as float32."""
    dtype: Any = space.dtype if np.issubdtype(space.dtype, np.floating) else np.float32
    return spaces.Box(
        np.concatenate([space.low, low], dtype=dtype),
        np.concatenate([space.high, high], dtype=dtype),
        dtype=dtype,
    )


def history_space(observation: spaces.Box, action: spaces.Box) -> spaces.Box:
    """The observation space with previous action, previous reward and first-step flag."""
    low = np.concatenate([action.low, [-np.inf, 0.0]])
    high = np.concatenate([action.high, [np.inf, 1.0]])
    return extended_space(observation, low, high)


OUTSIDE_A_TRIAL = (
    "a TrialWrapper around an env without history columns: its inner episodes would begin unseen; "
    "use TrialWrapper(PreviousActionReward(env))"
)
"""Why columns cannot be added outside a trial."""


class PreviousActionReward(
    gym.Wrapper[Array, Array, Array, Array], gym.utils.RecordConstructorArgs
):
    """Appends the previous action, the previous reward and a first-step-of-episode flag.

    At reset the action and the reward are zero and the flag is one. Part of every registered
    ``M3PO/*`` id; SB3 agents of this package add it to any other env.

    Raises:
        ValueError: If the env is a ``TrialWrapper``: inside of it is the place.
    """

    def __init__(self, env: gym.Env[Array, Array]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        inner: gym.Env[Any, Any] = env
        while isinstance(inner, gym.Wrapper):
            if isinstance(inner, TrialWrapper):
                raise ValueError(OUTSIDE_A_TRIAL)
            inner = inner.env
        observation, action = check_flat(env.observation_space), check_flat(env.action_space)
        self.observation_space = history_space(observation, action)
        self._dtype = cast(Any, self.observation_space.dtype)
        width = observation.shape[0]
        self._own, self._previous = slice(0, width), slice(width, width + action.shape[0])
        self._seen = np.zeros(self.observation_space.shape, self._dtype)
        self._first = np.concatenate([np.zeros(action.shape[0] + 1), [1.0]]).astype(self._dtype)
        has_limit = hasattr(env.unwrapped, "horizon") and env.spec is not None
        self._time_limit = env.spec.max_episode_steps if has_limit and env.spec else None
        self._pass_on_time_limit()

    @property
    def observation_layout(self) -> ObservationLayout:
        """The wrapped env's layout with the history blocks."""
        space = check_flat(self.env.action_space)
        return layout_of(self.env).with_history(space.shape[0])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Reset; see ``gymnasium.Env.reset``."""
        self._pass_on_time_limit()  # at every reset, as a pickled MuJoCo env is made anew
        obs, info = self.env.reset(seed=seed, options=options)
        return np.concatenate([obs, self._first], dtype=self._dtype), info

    def step(self, action: Array) -> tuple[Array, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step; see ``gymnasium.Env.step``."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        # Every step pays for this: a buffer, filled and copied, takes half of a concatenation.
        self._seen[self._own] = obs
        self._seen[self._previous] = action
        self._seen[-2] = reward
        return self._seen.copy(), reward, terminated, truncated, info

    def _pass_on_time_limit(self) -> None:
        # gym.make keeps it in a wrapper, where a meta-env that draws the changes of a whole episode
        # cannot see it.
        if self._time_limit is not None:
            self.env.unwrapped.horizon = self._time_limit  # type: ignore[attr-defined]


class ObserveTask(gym.Wrapper[Array, Array, Array, Array], gym.utils.RecordConstructorArgs):
    """Adds the task vector that the env reports in ``info["task"]``: what an oracle sees.

    The same columns as ``visibility="oracle"``, for an env that was made without it: on the right,
    or, as there, before history columns.
    """

    def __init__(self, env: gym.Env[Array, Array]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._width = len(env.get_wrapper_attr("tasks").names)
        layout, bound = layout_of(env), np.full(self._width, np.inf)
        history = layout.columns(*HISTORY_BLOCKS) if layout.has_history else [layout.width]
        own = np.arange(layout.width + self._width)
        self._order = np.insert(own[: layout.width], history[0], own[layout.width :])
        space = extended_space(check_flat(env.observation_space), -bound, bound)
        low, high = space.low[self._order], space.high[self._order]
        self.observation_space = spaces.Box(low, high, dtype=cast(Any, space.dtype))

    @property
    def observation_layout(self) -> ObservationLayout:
        """The wrapped env's layout with the task's block."""
        blocks = layout_of(self.env).blocks
        shown = sum(name not in HISTORY_BLOCKS for name, _ in blocks)
        return ObservationLayout((*blocks[:shown], (TASK, self._width), *blocks[shown:]))

    def _observe(self, obs: Array, info: dict[str, Any]) -> Array:
        dtype = cast(Any, self.observation_space.dtype)
        return np.concatenate([obs, info["task"]], dtype=dtype)[self._order]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Reset; see ``gymnasium.Env.reset``."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._observe(obs, info), info

    def step(self, action: Array) -> tuple[Array, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step; see ``gymnasium.Env.step``."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(obs, info), reward, terminated, truncated, info


def show_task(env: Any) -> Any:
    """The env; a single Gymnasium env that does not show its task gets ``ObserveTask``."""
    if isinstance(env, gym.Env) and env.has_wrapper_attr("tasks"):
        return env if TASK in layout_of(env).names else ObserveTask(env)
    return env


def check_shows_task(env: Any) -> None:
    """Refuse an env whose observation does not show the task.

    Raises:
        ValueError: If it does not.
    """
    if TASK not in (names := layout_of(env).names):
        raise ValueError(
            f"the oracle must see the task, but the observation has only {names}: "
            'make the env with visibility="oracle"'
        )


class TrialWrapper(gym.Wrapper[Array, Array, Array, Array], gym.utils.RecordConstructorArgs):
    """K episodes in one task, seen as one long episode: a trial (Duan et al. 2016, RL2).

    The task of the trial's first episode is forced at its inner resets. Inner boundaries show
    in the first-step flag of ``PreviousActionReward`` and in ``info["inner_episode"]``; the
    trial itself ends with its last episode, and as that does: terminated or truncated.
    """

    def __init__(self, env: gym.Env[Array, Array], n_episodes: int = 2) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, n_episodes=n_episodes)
        super().__init__(env)
        if n_episodes < 1:
            raise ValueError(f"n_episodes={n_episodes}: a trial has at least one episode")
        self.n_episodes = n_episodes
        self._episode = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start a new trial; a task forced for an earlier trial is forgotten."""
        self._episode = 0
        obs, info = self.env.reset(seed=seed, options={"task": None, **(options or {})})
        return obs, {**info, "inner_episode": 0}

    def step(self, action: Array) -> tuple[Array, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step; at an inner end the observation is the next inner episode's first."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        info["inner_episode"] = self._episode
        if not (terminated or truncated):
            return obs, reward, False, False, info
        self._episode += 1
        if self._episode == self.n_episodes:
            return obs, reward, terminated, truncated, info
        task = self.env.get_wrapper_attr("first_task")
        obs, reset_info = self.env.reset(options={"task": task})
        return obs, reward, False, False, {**info, **reset_info}
