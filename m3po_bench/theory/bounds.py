"""How far a return imagined with a model may lie from the real one: bounds as pure functions.

Notation, the definition of the branched return and the proofs are in ``docs/theory.md``. In short:
``eta`` is the real discounted return of the policy pi, ``eta_k`` its return when, at every time t,
the last ``min(t, k)`` steps are taken in the model and all before them in reality under the
data-collecting policy pi_D. States stand for histories: a history process is an MDP.

Common arguments, all of which broadcast against each other:

* ``eps_m``: model error under pi_D, ``max_t E[TV(p, p_model)]`` over histories and actions of pi_D,
  with TV the total variation between the joint distributions of (next observation, reward);
* ``eps_m_prime``: the same under the current policy pi;
* ``eps_pi``: ``max_h TV(pi(.|h), pi_D(.|h))``;
* ``gamma``: discount in [0, 1); ``r_max``: rewards lie in [-r_max, r_max] (``rewards="signed"``) or
  [0, r_max] (``rewards="nonnegative"``), which halves every bound, because the means of f under two
  distributions differ by at most (max f - min f) TV;
* ``k``: whole number of model steps, or ``math.inf`` for full model rollouts.

All bounds are in units of reward, linear in each eps, and returned as an array of the broadcast
shape (a scalar for scalar arguments). Arguments outside their domain raise ValueError. No return
can be wrong by more than ``(max r - min r) / (1 - gamma)``, so a larger bound says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Rewards = Literal["signed", "nonnegative"]


class BestRollout(NamedTuple):
    """The rollout length with the smallest bound.

    Attributes:
        k: Model steps of a rollout; ``math.inf`` means full rollouts.
        bound: The bound at that length, in units of reward.
    """

    k: float
    bound: float


class _CurrentPolicyBound(Protocol):
    def __call__(
        self,
        eps_m_prime: ArrayLike,
        eps_pi: ArrayLike,
        gamma: ArrayLike,
        r_max: ArrayLike,
        k: ArrayLike,
    ) -> Floats: ...


def full_rollout_bound(
    eps_m: ArrayLike,
    eps_pi: ArrayLike,
    gamma: ArrayLike,
    r_max: ArrayLike,
    *,
    rewards: Rewards = "signed",
) -> Floats:
    """Bound on ``|eta - eta_inf|``, full model rollouts: MBPO's Theorem 4.1.

    ``2 r_max [gamma (eps_m + 2 eps_pi) / (1-gamma)^2 + 2 eps_pi / (1-gamma)]``, for rewards that
    are a known function of history and action. With histories for states it is in the form of the
    M3PO paper's Theorem 1, as recollected. ``branched_bound`` at ``k = inf`` is sharper in
    ``eps_pi``. Where the model's own rewards are counted it does not hold: docs/theory.md.

    Source: Janner et al. 2019 (arXiv 1906.08253), Theorem 4.1.
    """
    eps_m, eps_pi = _share("eps_m", eps_m), _share("eps_pi", eps_pi)
    gamma, span = _discount(gamma), _reward_span(r_max, rewards)
    left = 1 - gamma
    return _plain(span * (gamma * (eps_m + 2 * eps_pi) / left**2 + 2 * eps_pi / left))


def branched_bound(
    eps_m: ArrayLike,
    eps_pi: ArrayLike,
    gamma: ArrayLike,
    r_max: ArrayLike,
    k: ArrayLike,
    *,
    rewards: Rewards = "signed",
    model_rewards: bool = False,
    horizon: ArrayLike = math.inf,
) -> Floats:
    """B2: bound on ``|eta - eta_k|`` from the model error on the collected data.

    ``2 r_max gamma [(1 - gamma^k) eps_m + eps_pi] / (1-gamma)^2``, and ``1/gamma`` times that where
    the model's own rewards are counted. It is sharp to first order in both errors and, with known
    rewards, for no k larger than ``full_rollout_bound`` or ``mbpo_4_2``. On a plain MDP (a history
    is a state) it is our corrected form of MBPO's Theorem 4.2.

    Args:
        eps_m: Model error under pi_D, in [0, 1].
        eps_pi: Policy shift, in [0, 1].
        gamma: Discount, in [0, 1).
        r_max: Largest reward, at least 0.
        k: Model steps, whole and at least 1, or ``math.inf``.
        rewards: Sign convention, see the module.
        model_rewards: Whether the reward at time t is the model's own prediction, the k-th of the
            rollout, instead of a known function of history and action. A rollout of k steps then
            holds k predicted rewards, and one that starts the episode errs from its first reward.
        horizon: Only the first ``horizon`` rewards are counted; whole and at least 1, or
            ``math.inf``.

    Source: proven in docs/theory.md, Theorem B2.
    """
    eps_m, eps_pi = _share("eps_m", eps_m), _share("eps_pi", eps_pi)
    in_model, all_steps = _discounted_steps(gamma, k, horizon, model_rewards)
    return _plain(_reward_span(r_max, rewards) * (in_model * eps_m + all_steps * eps_pi))


def branched_bound_current_policy(
    eps_m_prime: ArrayLike,
    eps_pi: ArrayLike,
    gamma: ArrayLike,
    r_max: ArrayLike,
    k: ArrayLike,
    *,
    rewards: Rewards = "signed",
    model_rewards: bool = False,
    horizon: ArrayLike = math.inf,
) -> Floats:
    """B3: bound on ``|eta - eta_k|`` from the model error under the current policy.

    ``2 r_max gamma [(1 - gamma^k) eps_m_prime + gamma^k eps_pi] / (1-gamma)^2``, and ``1/gamma``
    times that where the model's own rewards are counted: a weighted mean of the two errors, so the
    best k is 1 where ``eps_m_prime > eps_pi`` and unbounded where it is smaller. Sharp to first
    order in both errors and, with known rewards, never larger than ``mbpo_4_3``. On a plain MDP it
    is our corrected form of MBPO's Theorem 4.3.

    Args:
        eps_m_prime: Model error under pi, in [0, 1].
        eps_pi: Policy shift, in [0, 1].
        gamma: Discount, in [0, 1).
        r_max: Largest reward, at least 0.
        k: Model steps, whole and at least 1, or ``math.inf``.
        rewards: Sign convention, see the module.
        model_rewards: As in ``branched_bound``.
        horizon: As in ``branched_bound``.

    Source: proven in docs/theory.md, Theorem B3.
    """
    eps_m_prime, eps_pi = _share("eps_m_prime", eps_m_prime), _share("eps_pi", eps_pi)
    in_model, all_steps = _discounted_steps(gamma, k, horizon, model_rewards)
    total = in_model * eps_m_prime + (all_steps - in_model) * eps_pi
    return _plain(_reward_span(r_max, rewards) * total)


def mbpo_4_2(
    eps_m: ArrayLike,
    eps_pi: ArrayLike,
    gamma: ArrayLike,
    r_max: ArrayLike,
    k: ArrayLike,
    *,
    rewards: Rewards = "signed",
) -> Floats:
    """MBPO's Theorem 4.2: ``eta >= eta_k - bound``, model error on the collected data.

    ``2 r_max [gamma^(k+1) eps_pi/(1-gamma)^2 + (gamma^k+2) eps_pi/(1-gamma)
    + k (eps_m + 2 eps_pi)/(1-gamma)]``. It grows without end in k (k must be finite here) and
    exceeds the full rollout's coefficient of ``eps_m`` as soon as ``k > gamma / (1-gamma)``.

    Source: Janner et al. 2019 (arXiv 1906.08253), Theorem 4.2.
    """
    eps_m, eps_pi = _share("eps_m", eps_m), _share("eps_pi", eps_pi)
    gamma, k = _discount(gamma), _length("k", k, endless=False)
    left = 1 - gamma
    shift = gamma ** (k + 1) / left**2 + (gamma**k + 2) / left
    return _plain(_reward_span(r_max, rewards) * (shift * eps_pi + k / left * (eps_m + 2 * eps_pi)))


def mbpo_4_3(
    eps_m_prime: ArrayLike,
    eps_pi: ArrayLike,
    gamma: ArrayLike,
    r_max: ArrayLike,
    k: ArrayLike,
    *,
    rewards: Rewards = "signed",
) -> Floats:
    """MBPO's Theorem 4.3: ``eta >= eta_k - bound``, model error under the current policy.

    ``2 r_max [gamma^(k+1) eps_pi/(1-gamma)^2 + gamma^k eps_pi/(1-gamma)
    + k eps_m_prime/(1-gamma)]``, for finite k.

    Source: Janner et al. 2019 (arXiv 1906.08253), Theorem 4.3.
    """
    eps_m_prime, eps_pi = _share("eps_m_prime", eps_m_prime), _share("eps_pi", eps_pi)
    gamma, k = _discount(gamma), _length("k", k, endless=False)
    left = 1 - gamma
    shift = gamma ** (k + 1) / left**2 + gamma**k / left
    return _plain(_reward_span(r_max, rewards) * (shift * eps_pi + k / left * eps_m_prime))


def conjectured_branched_bound(
    eps_m: ArrayLike,
    eps_pi: ArrayLike,
    gamma: ArrayLike,
    r_max: ArrayLike,
    k: ArrayLike,
) -> Floats:
    """A recollection, from memory and unchecked, of a k-step bound; NOT a theorem in general.

    ``r_max [2 (1+gamma^2)/(1-gamma)^2 eps_pi + S (eps_m + eps_pi)]`` with
    ``S = sum_{t>=1} gamma^t (min(t, k) + 1)``. With known rewards it holds for ``0 <= r <= r_max``
    and for signed rewards at k = 1, because it then exceeds ``branched_bound``. With signed rewards
    it fails for every k >= 2 (two states suffice: docs/theory.md). Kept to be argued about; use
    ``branched_bound``.
    """
    eps_m, eps_pi = _share("eps_m", eps_m), _share("eps_pi", eps_pi)
    in_model, _ = _discounted_steps(gamma, k, math.inf, False)
    gamma = _discount(gamma)
    slope = in_model + gamma / (1 - gamma)
    shift = 2 * (1 + gamma**2) / (1 - gamma) ** 2
    return _plain(_reward_span(r_max, "nonnegative") * (shift * eps_pi + slope * (eps_m + eps_pi)))


def shifted_model_error(eps_m: ArrayLike, eps_pi: ArrayLike, slope: ArrayLike) -> Floats:
    """Model error under a policy ``eps_pi`` away from the data: ``min(1, eps_m + slope eps_pi)``.

    Args:
        eps_m: Model error under pi_D, in [0, 1].
        eps_pi: Policy shift, in [0, 1].
        slope: How fast the error grows with the shift, finite and at least 0.

    Source: the linearisation of Janner et al. 2019 (arXiv 1906.08253), section 4.3.
    """
    eps_m, eps_pi = _share("eps_m", eps_m), _share("eps_pi", eps_pi)
    slope = _checked("slope", slope, lambda v: (v >= 0) & (v < math.inf), "finite, at least 0")
    return _plain(np.minimum(1.0, eps_m + slope * eps_pi))


def best_rollout_length(
    eps_m_prime: float | Callable[[float], ArrayLike],
    eps_pi: float,
    gamma: float,
    r_max: float = 1.0,
    candidates: Sequence[float] = (1, 2, 5, 10, 20, 50, math.inf),
    *,
    bound: _CurrentPolicyBound = branched_bound_current_policy,
) -> BestRollout:
    """The rollout length whose bound is smallest, the shortest of equals.

    Under the default bound the answer is the shortest or the longest candidate, whichever of
    ``eps_m_prime`` and ``eps_pi`` is the larger; under ``mbpo_4_3`` it may lie between.

    Args:
        eps_m_prime: Model error under pi, in [0, 1], or a model of it: a function of ``eps_pi``,
            such as ``lambda shift: shifted_model_error(0.1, shift, slope=0.5)``.
        eps_pi: Policy shift, in [0, 1].
        gamma: Discount, in [0, 1).
        r_max: Largest reward, at least 0; it scales the bound and leaves the choice alone.
        candidates: Lengths to choose from, each whole and at least 1 or, where ``bound`` takes it,
            ``math.inf``.
        bound: A function of (eps_m_prime, eps_pi, gamma, r_max, k).

    Returns:
        The length and its bound in units of reward.

    Raises:
        ValueError: If there is no candidate or an argument is outside its domain.
    """
    if not candidates:
        raise ValueError(f"candidates is {candidates!r}; expected at least one rollout length")
    error = eps_m_prime(eps_pi) if callable(eps_m_prime) else eps_m_prime
    lengths = sorted(candidates)
    values = bound(error, eps_pi, gamma, r_max, np.asarray(lengths, dtype=float))
    # Equal bounds differ by rounding: the shortest rollout that is as good as any is wanted.
    best = int(np.argmax(values <= values.min() * (1 + 1e-12)))
    return BestRollout(lengths[best], float(values[best]))


def _discounted_steps(
    gamma: ArrayLike, k: ArrayLike, horizon: ArrayLike, model_rewards: bool
) -> tuple[Floats, Floats]:
    """``sum_{t<horizon} gamma^t min(t, k)`` and ``sum_{t<horizon} gamma^t t``, in closed form.

    Both with ``t + 1`` for ``t`` under ``model_rewards``: the reward is one more prediction.
    """
    gamma = _discount(gamma)
    k = _length("k", k)
    horizon = _length("horizon", horizon)
    first = 0 if model_rewards else 1
    left, cut = 1 - gamma, gamma**horizon

    def steps(most: Floats) -> Floats:
        # The j-th step counts from time j - 1 + first on: swap the sums over t and j.
        n = np.minimum(most, horizon - first)
        lost = np.where(np.isinf(horizon), 0.0, n) * cut
        closed = (gamma**first * (1 - gamma**n) / left - lost) / left
        with np.errstate(invalid="ignore"):
            undiscounted = n * (horizon - first) - n * (n - 1) / 2
        # Where little is discounted the closed form cancels; the other one is larger by a share of
        # at most left * horizon.
        return np.where(left * horizon < 1e-5, undiscounted, closed)

    return steps(k), steps(np.asarray(math.inf))


def _reward_span(r_max: ArrayLike, rewards: Rewards) -> Floats:
    spans = {"signed": 2.0, "nonnegative": 1.0}
    if rewards not in spans:
        raise ValueError(f"rewards is {rewards!r}; expected one of {', '.join(spans)}")
    finite = _checked("r_max", r_max, lambda v: (v >= 0) & (v < math.inf), "finite, at least 0")
    return spans[rewards] * finite


def _share(name: str, value: ArrayLike) -> Floats:
    return _checked(name, value, lambda v: (v >= 0) & (v <= 1), "in [0, 1]")


def _discount(value: ArrayLike) -> Floats:
    return _checked("gamma", value, lambda v: (v >= 0) & (v < 1), "in [0, 1)")


def _length(name: str, value: ArrayLike, *, endless: bool = True) -> Floats:
    def fits(v: Floats) -> NDArray[np.bool_]:
        whole: NDArray[np.bool_] = (v >= 1) & (v == np.floor(v)) & (np.isfinite(v) | endless)
        return whole

    return _checked(name, value, fits, "whole, at least 1" + (", or inf" if endless else ""))


def _checked(
    name: str, value: ArrayLike, fits: Callable[[Floats], NDArray[np.bool_]], expected: str
) -> Floats:
    array = np.asarray(value, dtype=np.float64)
    wrong = ~fits(array)  # NaN fits nowhere
    if wrong.any():
        raise ValueError(f"{name} is {array[wrong].flat[0]:g}; expected {expected}")
    return array


def _plain(value: Floats) -> Floats:
    """A scalar for a scalar, as NumPy's own functions return it."""
    return value[()]
