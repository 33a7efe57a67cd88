"""How two hot paths are compared."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

Action = Callable[[], Any]


@pytest.fixture
def ratio(benchmark: BenchmarkFixture) -> Callable[..., float]:
    """Measures the fastest round of ours over the fastest of the peer's.

    Rounds of both are interleaved, so that a busy machine slows both; and it is processor time,
    as long rounds are interrupted there.
    """

    def measure(ours: Action, peer: Action, rounds: int = 25) -> float:
        best = [np.inf, np.inf]
        for _ in range(rounds):
            for i, action in enumerate((ours, peer)):
                start = time.process_time()
                action()
                best[i] = min(best[i], time.process_time() - start)
        benchmark.pedantic(ours, rounds=3)  # type: ignore[no-untyped-call]
        benchmark.extra_info |= {"ratio": best[0] / best[1], "rounds_per_second": 1.0 / best[0]}
        return best[0] / best[1]

    return measure
