"""One torch thread, as in every run: more only wait for each other on networks of this size."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; subprocesses inherit it
