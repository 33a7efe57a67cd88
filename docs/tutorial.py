# %% [markdown]
# # An env and an agent of your own on the leaderboard
#
# A ball on a line is blown by a wind that nobody tells the agent, and that turns within the
# episode. The env gets its schedules, splits and `info` from `MetaEnvBase`; the agent gets its
# learn loop, saving and observation columns from `MetaAlgorithm`.

# %%
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import WrapperSpec

from m3po_bench.common.history_policy import HistoryPolicy
from m3po_bench.common.meta_algorithm import MetaAlgorithm
from m3po_bench.leaderboard.report import write_report
from m3po_bench.leaderboard.runner import Run
from m3po_bench.leaderboard.store import Store
from m3po_bench.leaderboard.suite_files import parse_suite
from m3po_bench.registry import AgentSpec, register_agent
from m3po_bench.tasks import UniformTasks
from m3po_envs.base import MetaEnvBase, NeverTerminates
from m3po_envs.splits import generate_episodes

# %% [markdown]
# ## The env
#
# First the body, an ordinary Gymnasium env, which `MetaEnvBase` seeds. Then what varies:
# `distributions` says between which values, `_apply` puts one in force.


# %%
class Ball(gym.Env):
    observation_space = gym.spaces.Box(-5.0, 5.0, (1,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.x = self.np_random.uniform(-1.0, 1.0, 1).astype(np.float32)
        return self.x, {}

    def step(self, action):
        self.x = np.clip(self.x + 0.3 * action + self.wind, -5.0, 5.0).astype(np.float32)
        return self.x, -float(abs(self.x[0])), False, False, {}


class WindEnv(NeverTerminates, MetaEnvBase, Ball):
    env_id = "Tutorial/Wind-v0"
    distributions = {"train": UniformTasks(("wind",), ((-0.25, 0.25),))}

    def _apply(self, task):
        self.wind = task.params[0]

    def _load_episodes(self, split):
        return tuple(generate_episodes(self.tasks, 8, seed=1))


history = WrapperSpec("PreviousActionReward", "m3po_bench.wrappers:PreviousActionReward", {})
gym.register(WindEnv.env_id, WindEnv, max_episode_steps=200, additional_wrappers=(history,))

# %% [markdown]
# ## The agent
#
# It remembers the last observation, sees in the history columns which action followed, and so
# knows the wind, if it knows what an action does. That factor it learns, by least squares on the
# differences of successive steps, in which the wind cancels.


# %%
class WindPolicy(HistoryPolicy):
    def empty(self, n):
        return (torch.zeros(n, 1),)

    def respond(self, seen, memory, deterministic):
        wind = torch.where(seen.first[:, None], 0.0, seen.obs - memory[0] - self.gain * seen.action)
        return (-(seen.obs + wind) / self.gain).clamp(-1.0, 1.0), (seen.obs,)


class WindReader(MetaAlgorithm):
    def _setup_model(self):
        self.set_random_seed(self.seed)
        self.policy = WindPolicy(self.observation_space, self.action_space, self.layout)
        self.policy.gain = torch.nn.Parameter(torch.ones(()))
        self.pairs = []

    def _store(self, step):
        self.pairs.append((step.action[0, 0], step.next_obs[0, 0] - step.obs[0, 0]))

    def train(self):
        self.policy.gain.data.fill_(np.polyfit(*np.diff(np.transpose(self.pairs)), 1)[0])


preset = {"policy": WindPolicy, "learning_rate": 0.0, "learning_starts": 20}
register_agent(AgentSpec("WindReader", "__main__:WindReader", {"default": preset}))

# %% [markdown]
# ## The leaderboard
#
# A suite as a table; a TOML file has the same keys. `m3po-bench run` makes each run in a process
# of its own, which finds what an installed package offers; a script makes them one by one. The
# whole leaderboard is in `wind/leaderboard.md`.

# %%
suite = parse_suite(
    {"name": "wind", "envs": [WindEnv.env_id], "schedule": "hazard", "seeds": 2, "steps": 300,
     "agents": ["WindReader", "SAC", "Random"], "preset": "tiny", "checkpoints": 2}
)  # fmt: skip
store = Store(Path("wind"))
for run in suite.runs():
    Run(run, store).execute()
print(write_report(store).table[["agent", "setting", "n_seeds", "return_mean"]].to_string())
