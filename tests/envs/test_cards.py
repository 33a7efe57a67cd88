from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from m3po_bench.registry import short_name
from m3po_envs import ENTRY_POINTS, cards

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_the_docstrings_say() -> None:
    written = (DOCS / "environments.md").read_text(encoding="utf-8")
    assert written == cards.page(), "run: MUJOCO_GL=egl python -m m3po_envs.cards docs"


@pytest.mark.parametrize("env_id", ENTRY_POINTS)
def test_every_env_has_a_picture_and_a_whole_card(env_id: str) -> None:
    name = short_name(env_id)
    assert (DOCS / "images" / f"{name}.png").is_file()
    card = cards.page().partition(f"## {name}\n")[2].partition("\n## ")[0]
    for part in (
        "Action", "Observation", "Reward", "Hidden", "Start and end",
        "Does it reward adaptation?", "Arguments", "Version history",
    ):  # fmt: skip
        assert f"\n### {part}\n" in card, part


@pytest.mark.parametrize("name", ["PointFwdBwd", "PointActuatorFault"])
def test_points_draw_themselves(name: str) -> None:
    drawn = cards.picture(f"M3PO/{name}-v0")
    assert drawn.shape == (240, 240, 3)
    assert drawn.dtype == np.uint8
    blue = np.all(drawn == (76, 114, 176), axis=-1)
    assert 50 < blue.sum() < 2000


def test_bodies_are_rendered() -> None:
    """In a process of its own: without EGL, MuJoCo ends the process."""
    code = (
        "import m3po_bench\nfrom m3po_envs import cards\n"
        "drawn = cards.picture('M3PO/AntCrippledLeg-v0')\n"
        "assert drawn.shape == (240, 240, 3) and drawn.std() > 10, drawn.std()\n"
        "frames = cards.animation()\n"
        "import gymnasium, numpy\n"
        "env = gymnasium.make('M3PO/HalfCheetahFwdBwd-v0', render_mode='rgb_array')\n"
        "env.reset(seed=0)\n"
        "def body():\n"
        "    seen = env.render().astype(int)\n"
        "    return (seen[..., 0] > seen[..., 2] + 30).sum()\n"
        "before, at = body(), env.unwrapped.data.qpos.copy()\n"
        "at[0] += 20.0\n"
        "env.unwrapped.set_state(at, env.unwrapped.data.qvel)\n"
        "assert abs(body() - before) < 0.3 * before > 500, 'it has run out of sight'\n"
        "assert frames.shape == (60, 240, 240, 3) and (frames[28] != frames[32]).any()\n"
    )
    environment = {**os.environ, "MUJOCO_GL": "egl"}
    probe = "import mujoco; c = mujoco.GLContext(8, 8); c.make_current()"
    for step in (probe, code):
        done = subprocess.run(
            [sys.executable, "-c", step], capture_output=True, text=True, env=environment
        )
        if step is probe and done.returncode:
            pytest.skip(f"no EGL here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
