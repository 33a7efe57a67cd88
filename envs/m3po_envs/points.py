"""What meta-envs on a point share: how they are made, and a picture from above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from m3po_bench.registry import unknown_name
from m3po_envs.base import MetaEnvBase, NeverTerminates

GREY, BLUE, ORANGE = (200, 200, 200), (76, 114, 176), (221, 132, 82)
_PIXELS = 240


class Disc(NamedTuple):
    """A disc in a picture: its centre, its radius, its colour (red, green, blue: 0 to 255)."""

    x: float
    y: float
    radius: float
    colour: tuple[int, int, int]


class PointBase(NeverTerminates, MetaEnvBase):
    """A meta-env on a point, whose body comes last in the bases.

    Args:
        schedule: See ``MetaEnvBase``.
        split: See ``MetaEnvBase``.
        visibility: See ``MetaEnvBase``.
        render_mode: ``"rgb_array"``, or None for no pictures.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - Gymnasium's own type
        "render_modes": ["rgb_array"],
        "render_fps": 20,
    }
    reach: ClassVar[float]
    """Half the width of what a picture shows."""

    def __init__(
        self,
        schedule: str | Mapping[str, Any] = "hazard",
        split: str = "train",
        visibility: str = "hidden",
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise unknown_name("render_mode", render_mode, ["rgb_array"])
        self._body.__init__(self)
        self.render_mode = render_mode
        MetaEnvBase.__init__(self, schedule, split, visibility)

    def _scene(self) -> Sequence[Disc]:
        """What there is to see, the hindmost first."""
        raise NotImplementedError

    def render(self) -> NDArray[np.uint8] | None:
        """The point from above, shape (240, 240, 3); None without ``render_mode``."""
        if self.render_mode is None:
            return None
        side = np.linspace(-self.reach, self.reach, _PIXELS)
        x, y = side[None, :], -side[:, None]  # y grows upwards
        picture = np.full((_PIXELS, _PIXELS, 3), 255.0)
        for disc in self._scene():
            inside = (disc.radius - np.hypot(x - disc.x, y - disc.y)) / (side[1] - side[0])
            share = np.clip(inside + 0.5, 0.0, 1.0)[..., None]
            picture += share * (np.asarray(disc.colour) - picture)
        return picture.round().astype(np.uint8)
