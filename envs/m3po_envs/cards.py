"""The cards of all environments as one page, with a picture of each and of one change.

``MUJOCO_GL=egl python -m m3po_envs.cards docs`` writes ``docs/environments.md`` and
``docs/images/``. The text comes from docstrings and registrations, and needs no renderer.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np
from numpy.typing import NDArray

from m3po_bench.registry import short_name
from m3po_envs import ENTRY_POINTS, register
from m3po_envs.base import MetaEnvBase
from m3po_envs.schedules import SCHEDULES, arguments_of

ANIMATED = "M3PO/AntCrippledLeg-v0"
ANIMATION = "change.gif"
_FRAMES, _CHANGE, _DURATION = 60, 30, 50
"""Of the animation: frames, the step of the change, milliseconds a frame."""

_HEAD = """\
# Environments

Made from the environments' docstrings by `python -m m3po_envs.cards docs`.

```python
import gymnasium as gym, m3po_bench

env = gym.make("M3PO/HalfCheetahPier-v0", schedule="hazard", split="train", visibility="hidden")
```

![One leg of the ant recovers and another one is crippled](images/change.gif)

A change within an episode: one leg of the ant recovers, another one shrinks and loses its motors.

"""


def page() -> str:
    """The page, as Markdown."""
    sections = [_HEAD + _contents(), _common(), _schedules()]
    sections += [_card(env_id) for env_id in ENTRY_POINTS]
    return "\n".join(sections)


def picture(env_id: str) -> NDArray[np.uint8]:
    """An env shortly after its start, shape (240, 240, 3) or as large as it draws itself."""
    env = gym.make(env_id, render_mode="rgb_array")
    env.reset(seed=1)
    env.action_space.seed(1)
    for _ in range(5):
        env.step(env.action_space.sample())
    drawn = _half(env.render())
    env.close()
    return drawn


def animation() -> NDArray[np.uint8]:
    """A change of ``ANIMATED`` within an episode, shape (frames, height, width, 3)."""
    schedule = {"name": "single", "step": _CHANGE}
    env = gym.make(ANIMATED, render_mode="rgb_array", schedule=schedule)
    env.reset(seed=0)
    frames = []
    for step in range(_FRAMES):
        swing = 0.15 * np.sin(2.0 * np.pi * (step / 12.0 + np.arange(8) / 4.0))
        env.step(swing.astype(np.float32))
        frames.append(_half(env.render()))
    env.close()
    return np.stack(frames)


def write(folder: Path) -> None:
    """Write page, pictures and animation into a folder of documentation."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    (folder / "environments.md").write_text(page(), encoding="utf-8")
    for env_id in ENTRY_POINTS:
        imageio.imwrite(images / f"{short_name(env_id)}.png", picture(env_id))
    imageio.imwrite(images / ANIMATION, animation(), duration=_DURATION, loop=0)


def _half(frame: Any) -> NDArray[np.uint8]:
    """Half as many pixels each way, where there are more than 240."""
    pixels = np.asarray(frame, dtype=np.float64)
    if pixels.shape[0] > 240:
        height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
        pixels = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean((1, 3))
    return pixels.round().astype(np.uint8)


def _contents() -> str:
    lines = ["| id | in one line |", "|---|---|"]
    for env_id in ENTRY_POINTS:
        summary = _docstring(_load(env_id)).splitlines()[0]
        lines.append(f"| [`{env_id}`](#{short_name(env_id).lower()}) | {summary} |")
    return "\n".join(lines) + "\n"


def _common() -> str:
    text = _docstring(MetaEnvBase).partition("\n\n")[2]
    return f"## What all share\n\n{text}\n"


def _schedules() -> str:
    lines = ["## Schedules", "", "| name | when the task changes | arguments |", "|---|---|---|"]
    for name, kind in SCHEDULES.items():
        summary = _docstring(kind).splitlines()[0]
        arguments = ", ".join(f"`{key}={value!r}`" for key, value in arguments_of(kind).items())
        lines.append(f"| `{name}` | {summary} | {arguments} |")
    lines += [
        "",
        'With arguments, a schedule is a dict: `schedule={"name": "hazard", "rate": 0.02}`. '
        "An env's card says where its defaults differ.",
    ]
    return "\n".join(lines) + "\n"


def _card(env_id: str) -> str:
    name = short_name(env_id)
    text = re.sub(r"^(#+ )", r"#\1", _docstring(_load(env_id)), flags=re.MULTILINE)
    return f"## {name}\n\n`{env_id}`\n\n![{name}](images/{name}.png)\n\n{text}\n"


def _load(env_id: str) -> type[Any]:
    module, _, name = ENTRY_POINTS[env_id].partition(":")
    loaded: type[Any] = getattr(importlib.import_module(module), name)
    return loaded


def _docstring(described: type[Any]) -> str:
    return (inspect.getdoc(described) or "").replace("``", "`")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: MUJOCO_GL=egl python -m m3po_envs.cards FOLDER")
    register()
    write(Path(sys.argv[1]))
