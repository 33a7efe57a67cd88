"""Films of test episodes, and what is said where none can be made."""

from __future__ import annotations

import os
from importlib.util import find_spec

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np
import pytest

from m3po_bench import film, make_agent
from m3po_bench.film import FilmError

ENV = "M3PO/PointFwdBwd-v0"


@pytest.fixture(scope="module")
def played() -> film.Film:
    return film.film(make_agent("Random", ENV, seed=0), ENV, {"schedule": "static"}, episode=1)


def test_a_film_shows_the_whole_episode(played: film.Film) -> None:
    assert played.frames.shape == (101, 268, 240, 3)
    assert played.frames.dtype == np.uint8
    assert (played.frames[0] != played.frames[50]).any()
    again = film.film(make_agent("Random", ENV, seed=0), ENV, {"schedule": "static"}, episode=1)
    assert again.total == played.total
    other = film.film(make_agent("Random", ENV, seed=0), ENV, {"schedule": "static"}, episode=2)
    assert other.total != played.total


@pytest.mark.parametrize("suffix", film.FORMATS)
def test_what_is_written_can_be_read(suffix: str, played: film.Film) -> None:
    if suffix == ".mp4" and find_spec("imageio_ffmpeg") is None:
        pytest.skip("imageio-ffmpeg is not installed")
    read = imageio.imread(played.encoded(suffix), extension=suffix)
    assert read.shape[1:] == (268, 240, 3)
    assert 90 <= len(read) <= 102  # equal frames in a row may be one
    error = np.abs(read[0].astype(float) - played.frames[0]).mean()
    assert error < 10.0


def test_the_caption_is_red_after_a_change() -> None:
    """And each frame's caption differs from the last one's."""
    shown = film.film(make_agent("Random", ENV, seed=0), ENV, {"schedule": "recurrent"}, episode=0)
    captions = shown.frames[:, :28].astype(int)
    red = ((captions[..., 0] > 200) & (captions[..., 1:].max(-1) < 50)).any((1, 2))
    env = gym.make(ENV, split="test", schedule="recurrent")
    env.reset(options={"episode": 0})
    since = [env.step(env.action_space.sample())[-1] for _ in range(100)]
    assert red.tolist() == [False] + [
        info["n_changes"] > 0 and info["steps_since_change"] < 10 for info in since
    ]
    assert red.any()
    assert not red.all()
    assert (captions[1:] != captions[:-1]).any((1, 2, 3)).all()


def test_no_such_episode() -> None:
    with pytest.raises(FilmError, match="episode 40: expected one of 0 to 39"):
        film.film(make_agent("Random", ENV), ENV, {}, episode=40)


def test_a_missing_library_or_format_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "find_spec", lambda name: None)
    film.check_format(".gif")
    with pytest.raises(FilmError, match=r"mp4 needs imageio-ffmpeg; .*m3po-bench\[video\]"):
        film.check_format(".mp4")
    with pytest.raises(ValueError, match=r"unknown film format '.gi'; expected .gif or .mp4"):
        film.check_format(".gi")


def test_what_cannot_be_drawn_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    film.check_drawing(ENV)
    monkeypatch.setitem(os.environ, "MUJOCO_GL", "nonsense")
    with pytest.raises(FilmError, match=r"cannot be drawn here: .*nonsense.*MUJOCO_GL=egl") as told:
        film.check_drawing("M3PO/HalfCheetahFwdBwd-v0")
    assert "\n" not in str(told.value)
