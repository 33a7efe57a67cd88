"""Windows, sequences and states of the replay against a stream that is known step by step."""

from __future__ import annotations

import pytest
import torch

from m3po_bench.common.sequence_replay import RealTransitions, SequenceReplay


def filled(
    n_steps: int, n_envs: int = 1, episode: int = 5, max_steps: int = 1000, cut_every: int = 0
) -> SequenceReplay:
    """Observation = (stream, time); next observation = (stream, time + 1)."""
    replay = SequenceReplay(n_envs, obs_dim=2, action_dim=1, state_dim=3, max_steps=max_steps)
    stream = torch.arange(n_envs).float()
    for t in range(n_steps):
        ends = (t + 1) % episode == 0
        replay.add(
            torch.stack([stream, torch.full((n_envs,), float(t))], -1),
            torch.zeros(n_envs, 1),
            torch.full((n_envs,), float(t)),
            torch.stack([stream, torch.full((n_envs,), t + 1.0)], -1),
            torch.zeros(n_envs),
            torch.full((n_envs,), t % episode == 0),
            torch.full((n_envs,), bool(cut_every) and not ends and (t + 1) % cut_every == 0),
        )
    return replay


def test_windows_are_contiguous_and_stay_in_their_sequence() -> None:
    torch.manual_seed(0)
    replay = filled(23, n_envs=2)
    window, valid = replay.windows(200, 4)
    assert valid[0].all()
    both = valid[1:] & valid[:-1]
    step = window.obs[1:] - window.obs[:-1]
    assert (step[both] == torch.tensor([0.0, 1.0])).all()
    assert (window.sequence == window.sequence[0])[valid].all()
    time = window.obs[..., 1]
    assert (
        torch.div(time, 5, rounding_mode="floor")[valid]
        == torch.div(time[0], 5, rounding_mode="floor").expand(4, -1)[valid]
    ).all()
    # Nothing is cut short without need: the last valid step ends its episode or the data.
    last = time.masked_fill(~valid, -1).amax(0)
    full = valid.all(0)
    assert (full | ((last + 1) % 5 == 0) | (last == 22)).all()


def test_growth_and_ring_keep_the_newest_in_order() -> None:
    torch.manual_seed(0)
    replay = filled(3000, max_steps=1500)
    assert len(replay) == 1500
    times = replay.all.obs[:, 1]
    assert times.min() == 1500
    assert times.max() == 2999
    window, valid = replay.windows(500, 6)
    both = valid[1:] & valid[:-1]
    assert ((window.obs[1:] - window.obs[:-1])[..., 1][both] == 1).all()


@pytest.mark.parametrize("recency", [1.0, 4.0])
def test_starts_are_as_late_as_asked_for(recency: float) -> None:
    """In a ring of two streams too; u^(1/c) has the mean c / (c + 1)."""
    torch.manual_seed(0)
    replay = filled(1300, n_envs=2, max_steps=1000)  # 500 of each stream, from 800 on
    for drawn in (
        replay.sample(20_000, recency),
        RealTransitions(*(x[0] for x in replay.windows_to_learn_from(20_000, 2, 0, recency)[0])),
    ):
        later = (drawn.obs[:, 1] - 800.0) / 500.0
        assert later.min() >= 0.0
        assert abs(later.mean().item() - recency / (recency + 1.0)) < 0.01
        assert abs(drawn.obs[:, 0].mean().item() - 0.5) < 0.02
        assert abs((later < 0.5).float().mean().item() - 0.5**recency) < 0.015


def test_first_steps_are_of_sequences_whose_beginning_is_still_stored() -> None:
    torch.manual_seed(0)
    replay = filled(23, n_envs=2)
    assert set(replay.sample_first(200).obs[:, 1].tolist()) == {0.0, 5.0, 10.0, 15.0, 20.0}
    replay = filled(23, n_envs=2, max_steps=24)  # 12 of each stream, from 11 on
    first = replay.sample_first(200)
    assert set(first.obs[:, 1].tolist()) == {15.0, 20.0}
    assert set(first.obs[:, 0].tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match="no first step of a sequence is stored: expected a repl"):
        filled(23, episode=100, max_steps=12).sample_first(1)


def test_sequences_visit_every_row_once_and_carry_states_back() -> None:
    replay = filled(23, n_envs=2)
    sequences = replay.sequences()
    assert sequences.rows.shape == (5, 10)
    assert sorted(sequences.rows[sequences.valid].tolist()) == list(range(46))
    obs = replay.take(sequences.rows).obs
    inside = sequences.valid[1:]
    assert ((obs[1:] - obs[:-1])[inside] == torch.tensor([0.0, 1.0])).all()
    age = torch.arange(5.0)[:, None, None].expand(5, 10, 3)
    replay.set_states(sequences, age, age + 1)
    data = replay.all
    assert torch.equal(data.state[:, 0], data.obs[:, 1] % 5)
    assert torch.equal(data.next_state, data.state + 1)
    assert replay.last.state[:, 0].tolist() == [2.0, 2.0]


def test_steps_between_inner_episodes_are_never_learnt_from() -> None:
    torch.manual_seed(0)
    replay = filled(40, episode=10, cut_every=5)  # t = 4, 14, 24, 34 lead to another episode
    times = replay.sample(500).obs[:, 1]
    assert not (times % 10 == 4).any()
    assert len(set(times.tolist())) == 36
    window, valid = replay.windows(300, 8)
    assert not (window.obs[..., 1][valid] % 10 == 4).any()
    crossing = (window.obs[0, :, 1] % 10 < 4)[None] & (window.obs[..., 1] % 10 > 4)
    assert not (valid & crossing).any()
    assert set(replay.all.sequence.tolist()) == {0, 1, 2, 3}


def test_windows_to_learn_from_cover_early_and_late_steps_alike() -> None:
    torch.manual_seed(0)
    replay = filled(100, n_envs=2, episode=20)
    window, learn = replay.windows_to_learn_from(8000, 8, 3)
    time = window.obs[..., 1]
    # What is learnt from is one piece of one episode, with the burn-in before it.
    both = learn[1:] & learn[:-1]
    assert ((time[1:] - time[:-1])[both] == 1).all()
    assert (window.sequence == window.sequence[0])[learn].all()
    assert (learn.any(0)).all()
    assert torch.equal(learn[0], learn[0] & (time[0] % 20 == 0))  # no burn-in: memory begins
    assert learn[3:].any(0).all()
    counts = torch.bincount((time[learn] % 20).long(), minlength=20).float()
    assert float(counts.min()) > 0.4 * float(counts.median())
    assert float(counts[0]) > 0.7 * float(counts.median())


def test_windows_to_learn_from_stop_at_cuts_and_in_a_ring() -> None:
    torch.manual_seed(0)
    replay = filled(3000, episode=10, cut_every=5, max_steps=1500)
    window, learn = replay.windows_to_learn_from(2000, 8, 3)
    time = window.obs[..., 1]
    assert time[learn].min() == 1500
    assert time[learn].max() == 2998 + 1
    assert not (time[learn] % 10 == 4).any()
    side = torch.div(time, 5, rounding_mode="floor")
    assert (side == side[0])[learn].all()
