"""An agent's frozen test episode as moving pictures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

FORMATS = (".gif", ".mp4")
_LARGEST = 240
_PROBE = """\
import sys, gymnasium, m3po_bench
env = gymnasium.make(sys.argv[1], render_mode="rgb_array")
env.reset()
if env.render() is None:
    sys.exit("it draws nothing")
"""


class FilmError(ValueError):
    """An episode that cannot be shown; the message is one line that says why."""


@dataclass(frozen=True)
class Film:
    """A test episode of T steps.

    Attributes:
        frames: Shape (T + 1, height, width, 3), uint8.
        rate: Frames per second.
        total: The episode's return.
    """

    frames: NDArray[np.uint8]
    rate: float
    total: float

    def encoded(self, suffix: str) -> bytes:
        """The contents of a file of one of ``FORMATS``."""
        import imageio.v3 as imageio

        gif = {"duration": round(1000.0 / self.rate), "loop": 0}
        how: dict[str, Any] = gif if suffix == ".gif" else {"fps": self.rate, "macro_block_size": 1}
        data: bytes = imageio.imwrite("<bytes>", self.frames, extension=suffix, **how)
        return data


def check_format(suffix: str) -> None:
    """Refuse a format that cannot be written here.

    Raises:
        FilmError: If it is none of ``FORMATS``, or its library is missing.
    """
    if suffix not in FORMATS:
        raise FilmError(f"unknown film format {suffix!r}; expected {' or '.join(FORMATS)}")
    if suffix == ".mp4" and find_spec("imageio_ffmpeg") is None:
        raise FilmError(
            'mp4 needs imageio-ffmpeg; install it with: pip install "m3po-bench[video]", or give '
            "--out a name that ends in .gif"
        )


def check_drawing(env_id: str) -> None:
    """Refuse an env that cannot be drawn here; tried in a process, which MuJoCo might abort.

    Raises:
        FilmError: If it cannot.
    """
    tried = subprocess.run(
        [sys.executable, "-c", _PROBE, env_id], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        said = [line.strip() for line in tried.stderr.splitlines() if line.strip()]
        reason = said[-1] if said else f"drawing it ended with status {tried.returncode}"
        raise FilmError(
            f"{env_id} cannot be drawn here: {reason} (MuJoCo without a screen wants MUJOCO_GL=egl)"
        )


def film(model: Any, env_id: str, env_kwargs: Mapping[str, Any], episode: int) -> Film:
    """Let an agent play a frozen test episode, and draw it.

    Args:
        model: Anything with SB3's ``predict``.
        env_id: A registered env that draws itself (``check_drawing``).
        env_kwargs: Its arguments, beside the split.
        episode: Index in the split's list.

    Raises:
        FilmError: If there is no such episode.
    """
    env = gym.make(env_id, split="test", render_mode="rgb_array", **env_kwargs)
    known = len(env.get_wrapper_attr("episodes"))
    if not 0 <= episode < known:
        raise FilmError(f"episode {episode}: expected one of 0 to {known - 1}")
    obs, _ = env.reset(options={"episode": episode})
    frames, total, state, start, over = [_drawn(env)], 0.0, None, np.ones(1, bool), False
    while not over:
        action, state = model.predict(
            np.asarray(obs)[None], state=state, episode_start=start, deterministic=True
        )
        start = np.zeros(1, bool)
        obs, reward, terminated, truncated, _ = env.step(action[0])
        total += float(reward)
        frames.append(_drawn(env))
        over = terminated or truncated
    rate = float(env.metadata.get("render_fps", 20))
    env.close()
    return Film(np.stack(frames), rate, total)


def _drawn(env: gym.Env[Any, Any]) -> NDArray[np.uint8]:
    """A frame with an even number of pixels each way, as films want it, and no more than needed."""
    pixels = np.asarray(env.render(), dtype=np.uint8)
    every = -(-max(pixels.shape[:2]) // _LARGEST)
    pixels = pixels[::every, ::every]
    height, width = (size - size % 2 for size in pixels.shape[:2])
    return pixels[:height, :width]
