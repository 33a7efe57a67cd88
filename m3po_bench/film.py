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
_CAPTION, _CHANGED = 28, 10
"""Height of a caption in pixels, and for how many steps it is red after the task has changed."""
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
        frames: Shape (T + 1, height, width, 3), uint8; each with a caption that tells task, step
            and return so far, red for ten steps after the task has changed.
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
    obs, info = env.reset(options={"episode": episode})
    frames = [_with_caption(_drawn(env), _task_line(env, info), "step 0", red=False)]
    total, state, start, over = 0.0, None, np.ones(1, bool), False
    while not over:
        action, state = model.predict(
            np.asarray(obs)[None], state=state, episode_start=start, deterministic=True
        )
        start = np.zeros(1, bool)
        obs, reward, terminated, truncated, info = env.step(action[0])
        total += float(reward)
        numbers = f"step {len(frames)}, return {total:.1f}"
        changed = info["n_changes"] > 0 and info["steps_since_change"] < _CHANGED
        frames.append(_with_caption(_drawn(env), _task_line(env, info), numbers, changed))
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


def _task_line(env: gym.Env[Any, Any], info: Mapping[str, Any]) -> str:
    """The task that is in force; by its number where it is more than one value."""
    names = env.get_wrapper_attr("tasks").names
    return f"{names[0]} = {info['task'][0]:.3g}" if len(names) == 1 else f"task {info['task_id']}"


def _with_caption(
    frame: NDArray[np.uint8], first: str, second: str, red: bool
) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw

    caption = Image.new("RGB", (frame.shape[1], _CAPTION), "white")
    colour = "red" if red else "black"
    ImageDraw.Draw(caption).multiline_text((4, 1), f"{first}\n{second}", fill=colour, spacing=2)
    return np.concatenate([np.asarray(caption), frame])
