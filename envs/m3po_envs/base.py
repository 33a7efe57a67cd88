"""The part that every meta-environment shares: tasks, when they change, who may see them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, SupportsFloat, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from m3po_bench.registry import unknown_name
from m3po_bench.tasks import FiniteTasks, Task, TaskDistribution
from m3po_bench.wrappers import (
    OBSERVATION,
    TASK,
    TASK_CHANGED,
    ObservationLayout,
    check_flat,
    extended_space,
)
from m3po_envs import HORIZON, HORIZONS
from m3po_envs.schedules import Change, Schedule, parse_schedule
from m3po_envs.splits import SPLITS, Episode, load_episodes

Array = NDArray[np.float64]

Start = tuple[NDArray[Any], dict[str, Any]]
Step = tuple[NDArray[Any], SupportsFloat, bool, bool, dict[str, Any]]

VISIBILITIES = ("hidden", "notified", "oracle")
OPTIONS = ("task", "schedule", "change_seed", "episode")


class NeverTerminates:
    """Episodes end by the time limit alone."""

    def terminated(
        self, obs: NDArray[Any], action: NDArray[Any], next_obs: NDArray[Any]
    ) -> NDArray[np.bool_]:
        """See ``m3po_bench.tasks.MetaEnv``; no transition ends its episode."""
        return np.zeros(len(next_obs), dtype=np.bool_)


class MetaEnvBase(gym.Env[NDArray[Any], NDArray[Any]]):
    """Turns a Gymnasium env, named after it in the bases, into a meta-environment.

    Actions are in [-1, 1] and rescaled to the body's. Every env takes these arguments:

    | argument     | values                                                                    |
    |--------------|---------------------------------------------------------------------------|
    | `schedule`   | when the task changes: a schedule's name, or a dict with its arguments    |
    | `split`      | `train` draws tasks; `test` and, where it exists, `ood` play frozen ones  |
    | `visibility` | `hidden`; `notified` adds `task_changed` to what is seen, `oracle` `task`  |

    In ``test`` and ``ood``, ``reset(options={"episode": i})`` plays the i-th frozen episode, and a
    plain ``reset()`` draws one of them, with replacement.

    A change at step t means that transition t, counted from 0, is the first under the new task.
    It is applied at the end of transition t - 1, whose observation and ``info`` therefore
    describe the new task already.

    ``info``, on reset and step, is flat and numeric:

    | key                  | value                                                             |
    |----------------------|-------------------------------------------------------------------|
    | `task_id`            | position in a finite list, else a counter of the episode's tasks  |
    | `task_changed`       | 1 if the next transition is the first under a new task, else 0    |
    | `steps_since_change` | transitions since the last change, or since the reset             |
    | `n_changes`          | changes in this episode so far                                    |
    | `task`               | the values in force for the next transition, shape (n_params,)    |

    ``reset`` takes, beside ``seed``, these ``options``:

    | option        | effect                                                                   |
    |---------------|--------------------------------------------------------------------------|
    | `task`        | first task of this and later episodes, until the next one; None frees it |
    | `schedule`    | schedule of this and later episodes, until the next one; None frees it   |
    | `change_seed` | seed of this episode's change list                                       |
    | `episode`     | plays that frozen episode of the split `test` or `ood`                   |

    An observation is flat. Its blocks of columns, from left to right:

    | block             | width     | there with              | holds                             |
    |-------------------|-----------|-------------------------|-----------------------------------|
    | `observation`     | see card  |                         | the body's observation            |
    | `task_changed`    | 1         | `visibility="notified"` | as in `info`                      |
    | `task`            | n_params  | `visibility="oracle"`   | as in `info`                      |
    | `previous_action` | n_actions |                         | last step's action, 0 after reset |
    | `previous_reward` | 1         |                         | its reward, 0 after reset         |
    | `first_step`      | 1         |                         | 1 after reset, else 0             |

    The last three are added by `m3po_bench.wrappers.PreviousActionReward`, which every registered
    id has. `m3po_bench.wrappers.layout_of(env)` gives the blocks, and the indices of their columns.
    Examples, also for envs of your own: [Tasks and changes](changes.md). Which agents have been
    run on which env, for how long and with which preset:
    [Published runs](leaderboard.md#published-runs).

    A subclass sets ``env_id`` and ``distributions``, implements ``_apply``, and ``reward`` and
    ``terminated`` of ``m3po_bench.tasks.MetaEnv``, and calls this ``__init__`` after the body's.
    """

    _body: ClassVar[Any]
    """The class of the body: what comes after this one in the bases."""

    env_id: ClassVar[str]
    distributions: ClassVar[Mapping[str, TaskDistribution]]
    """Tasks of the splits ``train`` (also used by ``test``) and, where there are any, ``ood``."""

    schedule_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Arguments of schedules, by schedule, where the usual ones do not suit the body."""

    reported: ClassVar[tuple[str, ...]] = ()
    """Numbers in a step's ``info`` whose mean over an episode tells what its return hides."""

    horizon: int
    """Transitions for which changes are drawn: the time limit, which ``gym.make`` keeps in a
    wrapper; ``PreviousActionReward`` passes it on."""

    def __init__(
        self,
        schedule: str | Mapping[str, Any] = "hazard",
        split: str = "train",
        visibility: str = "hidden",
    ) -> None:
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        if visibility not in VISIBILITIES:
            raise unknown_name("visibility", visibility, VISIBILITIES)
        self.horizon = HORIZONS.get(self.env_id, HORIZON)
        self.split = split
        self.visibility = visibility
        self._shows = visibility != "hidden"
        self._own_schedule = self._schedule = parse_schedule(schedule, self.schedule_defaults)
        self._tasks = self._tasks_of(split)
        self._own_schedule.check(self._tasks)
        self._episodes = () if split == "train" else self._load_episodes(split)
        self._forced_task: Task | None = None
        self._life_task: Task | None = None
        self._interrupted: np.random.Generator | None = None
        self._set_spaces()
        # There is a task before the first reset: isinstance(env, MetaEnv) reads it.
        self._begin_episode(self._tasks.sample(np.random.default_rng(0)), ())

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._body = cls.__mro__[cls.__mro__.index(MetaEnvBase) + 1]

    def _tasks_of(self, split: str) -> TaskDistribution:
        if split == "ood" and "ood" not in self.distributions:
            tasks = self.distributions["train"]
            shown = f", {tasks.values}," if isinstance(tasks, FiniteTasks) else ""
            raise ValueError(
                f"{self.env_id} has no split 'ood': its tasks{shown} are all there is; "
                "nearest: split='test' with another schedule"
            )
        if split != "ood":
            return self.distributions["train"]
        tasks, train = self.distributions["ood"], self.distributions["train"]
        if isinstance(tasks, FiniteTasks) and isinstance(train, FiniteTasks) and len(tasks) == 1:
            # Frozen episodes start in the one ood task; a change leads to training's and back.
            return FiniteTasks(tasks.names, tasks.values + train.values)
        return tasks

    def _load_episodes(self, split: str) -> tuple[Episode, ...]:
        return load_episodes(self.env_id, split)

    def _set_spaces(self) -> None:
        body, action = check_flat(self.observation_space), check_flat(self.action_space)
        center, half = (action.high + action.low) / 2, (action.high - action.low) / 2
        self._rescale = None if np.all(center == 0) and np.all(half == 1) else (center, half)
        self.action_space = spaces.Box(-1.0, 1.0, action.shape, np.float32)
        layout = ObservationLayout(((OBSERVATION, int(body.shape[0])),))
        if self.visibility == "notified":
            layout = layout.with_blocks((TASK_CHANGED, 1))
            self.observation_space = extended_space(body, np.zeros(1), np.ones(1))
        elif self.visibility == "oracle":
            layout = layout.with_blocks((TASK, len(self._tasks.names)))
            # Unbounded, so that the space is the same for all splits and forced tasks.
            bound = np.full(len(self._tasks.names), np.inf)
            self.observation_space = extended_space(body, -bound, bound)
        self._layout = layout
        self._dtype: Any = self.observation_space.dtype

    @property
    def observation_layout(self) -> ObservationLayout:
        """The body's columns, then what ``visibility`` adds."""
        return self._layout

    @property
    def tasks(self) -> TaskDistribution:
        """Where this split's tasks come from."""
        return self._tasks

    @property
    def task(self) -> Task:
        """The task in force for the next step."""
        return self._task

    @property
    def first_task(self) -> Task:
        """The task of the episode's start."""
        return self._first_task

    @property
    def kept_task(self) -> Task | None:
        """The task that later episodes will start in; None if each draws its own.

        Either forced by ``reset``'s options, or, under a schedule that keeps it, the first one
        since a reset with a seed.
        """
        return self._forced_task or (self._life_task if self._schedule.keeps_first_task else None)

    @property
    def schedule(self) -> Schedule:
        """The schedule in force."""
        return self._schedule

    @property
    def changes(self) -> tuple[Change, ...]:
        """All changes of this episode, past and to come."""
        return self._changes

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """The frozen episodes of the split ``test`` or ``ood``; none for ``train``."""
        return self._episodes

    def _apply(self, task: Task) -> None:
        """Put a task in force in the body."""
        raise NotImplementedError

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start an episode; see the class for ``options``.

        Raises:
            ValueError: If an option or its value is not known; the env is then as it was.
        """
        given = self._parsed(options or {})
        self._seed(seed)
        if seed is not None:  # a new life: the trajectory is to be a function of the seed
            self._life_task = self._interrupted = None
        first, changes = self._draw_episode(given)
        self._begin_episode(first, changes)
        obs, info = self._reset_body()
        return self._observe(obs), self._report(info)

    def step(
        self, action: NDArray[Any]
    ) -> tuple[NDArray[Any], SupportsFloat, bool, bool, dict[str, Any]]:
        """Step; see ``gymnasium.Env.step``."""
        if self._rescale is not None:
            action = self._rescale[0] + self._rescale[1] * action
        obs, reward, terminated, truncated, info = self._step_body(action)
        self._step += 1
        self._since += 1
        self._changed = self._step == self._next_change
        if self._changed:
            self._advance()
        if self._shows:
            obs = self._observe(obs)
        return obs, reward, terminated, truncated, self._report(info)

    def _seed(self, seed: int | None) -> None:
        gym.Env.reset(self, seed=seed)

    def _reset_body(self) -> Start:
        return cast(Start, self._body.reset(self, seed=None, options=None))

    def _step_body(self, action: NDArray[Any]) -> Step:
        return cast(Step, self._body.step(self, action))

    def _parsed(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options, checked and made what they describe; the env is left as it was."""
        for option in options:
            if option not in OPTIONS:
                raise unknown_name("reset option", option, OPTIONS)
        parsed = dict(options)
        if options.get("task") is not None:
            parsed["task"] = self._tasks.parse(options["task"])
        if "schedule" in options:
            schedule = self._own_schedule
            if options["schedule"] is not None:
                schedule = parse_schedule(options["schedule"], self.schedule_defaults)
            schedule.check(self._tasks)
            parsed["schedule"] = schedule
        if "episode" in options:
            self._check_index(options)
        if "change_seed" in options:
            seed = options["change_seed"]
            if not isinstance(seed, (int, np.integer)) or seed < 0:
                raise ValueError(f"change_seed={seed!r}: expected a whole number, 0 or more")
            parsed["change_seed"] = int(seed)
        return parsed

    def _check_index(self, options: Mapping[str, Any]) -> None:
        index = options["episode"]
        if not self._episodes:
            raise ValueError(
                f"episode={index!r}: split 'train' has no frozen episodes; make the env with "
                "split='test'"
            )
        if options.get("task") is not None or "change_seed" in options:
            raise ValueError(
                f"episode={index!r} has a task and a change seed of its own; leave out 'task' "
                "and 'change_seed'"
            )
        last = len(self._episodes) - 1
        if not isinstance(index, (int, np.integer)) or not 0 <= index <= last:
            raise ValueError(f"episode={index!r}: expected an index 0..{last}")

    def _draw_episode(self, options: Mapping[str, Any]) -> tuple[Task, tuple[Change, ...]]:
        """First task and changes of the next episode, from one integer of ``np_random``."""
        self._forced_task = options.get("task", self._forced_task)
        self._schedule = options.get("schedule", self._schedule)
        kept = self.kept_task
        free = bool(self._episodes) and kept is None and "change_seed" not in options
        if free and "episode" not in options and self._interrupted is not None:
            # The stream from which episodes are drawn goes on where a frozen one interrupted it.
            self.np_random, self._interrupted = self._interrupted, None
        drawn_seed = int(self.np_random.integers(2**63))
        episode = self._frozen_episode(options.get("episode"), drawn_seed if free else None)
        change_seed = episode.change_seed if episode else options.get("change_seed", drawn_seed)
        rng = np.random.default_rng(change_seed)
        drawn = self._tasks.sample(rng)  # also if not used: the change list is then the same
        first = self._tasks.parse(episode.task) if episode else kept or drawn
        if self._forced_task is None and self._life_task is None:
            self._life_task = first
        return first, self._schedule.changes(rng, self.horizon, self._tasks, first)

    def _frozen_episode(self, index: int | None, drawn: int | None) -> Episode | None:
        """The frozen episode to play, if any; from here on ``np_random`` follows its state seed."""
        if index is None and drawn is not None:
            index = int(np.random.default_rng(drawn).integers(len(self._episodes)))
        if index is None:
            return None
        if self._interrupted is None:
            self._interrupted = self.np_random
        self.np_random = np.random.default_rng(self._episodes[index].state_seed)
        return self._episodes[index]

    def _begin_episode(self, first: Task, changes: tuple[Change, ...]) -> None:
        self._first_task, self._changes = first, changes
        self._step = self._since = self._n_changes = 0
        self._changed = False
        self._ids: dict[tuple[float, ...], int] = {}
        self._enter(first)

    def _advance(self) -> None:
        if self._n_changes == len(self._changes):
            self._outlive()
            return
        task = self._changes[self._n_changes].task
        self._n_changes += 1
        self._since = 0
        self._enter(task)

    def _enter(self, task: Task) -> None:
        left = self._changes[self._n_changes :]
        beyond = self.horizon + 1 if self._schedule.goes_on else -1
        self._next_change = left[0].step if left else beyond
        self._task = task
        self._vector = task.vector
        self._task_id = self._id(task)
        self._apply(task)

    def _outlive(self) -> None:
        """Say that the episode is longer than the steps for which changes were drawn."""
        self._changed, self._next_change = False, -1
        warnings.warn(
            f"{self.env_id}: changes of the task are drawn for {self.horizon} steps, and this "
            "episode goes on for longer, without any: give the env a time limit with "
            "max_episode_steps, or set its unwrapped.horizon",
            stacklevel=3,
        )

    def _id(self, task: Task) -> int:
        if task.index >= 0:
            return task.index
        return self._ids.setdefault(task.params, len(self._ids))

    def _observe(self, obs: NDArray[Any]) -> NDArray[Any]:
        if not self._shows:
            return obs
        seen = self._vector if self.visibility == "oracle" else (float(self._changed),)
        return np.concatenate([obs, seen], dtype=self._dtype)

    def _report(self, info: dict[str, Any]) -> dict[str, Any]:
        info["task_id"] = self._task_id
        info["task_changed"] = int(self._changed)
        info["steps_since_change"] = self._since
        info["n_changes"] = self._n_changes
        info["task"] = self._vector.copy()
        return info
