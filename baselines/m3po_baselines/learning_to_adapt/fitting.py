"""Fitting an adaptive model to all data so far, until it stops getting better on held-out ones."""

from __future__ import annotations

import torch
from torch import Tensor

from m3po_baselines.learning_to_adapt.adaptive_model import (
    AdaptiveModel,
    Observed,
    adaptation_errors,
)
from m3po_bench.common.sequence_replay import SequenceReplay

HELD_OUT_EVERY, HELD_OUT = 10, 4
"""One sequence in ten is held out, the fifth first: earlier there are too few to give one away."""

_MEASURED = 40
"""Sequences, at most, on which the effect of the memory is measured after a fit."""


class ModelFitter:
    """Adam on pieces of sequences, in epochs, with early stopping on a rolling validation loss.

    Args:
        model: What is fitted.
        learning_rate: Of Adam.
        batch_size: Pieces of sequences per gradient step.
        max_epochs: Most passes over the data in a fit.
        persistence: Share of the old in the rolling average of the validation loss.
    """

    def __init__(
        self,
        model: AdaptiveModel,
        learning_rate: float,
        batch_size: int,
        max_epochs: int,
        persistence: float,
    ) -> None:
        self.model, self.batch_size = model, batch_size
        self.max_epochs, self.persistence = max_epochs, persistence
        self.optimizer = torch.optim.Adam(model.parameters(), learning_rate, fused=True)

    def fit(self, replay: SequenceReplay) -> tuple[int, dict[str, float]]:
        """Fit to all stored transitions.

        Returns:
            Gradient steps made, and what to log: ``loss``, ``validation_loss`` where sequences
            are held out, ``epochs``, and ``adaptation_errors`` on the held-out sequences (on the
            training ones, as long as none are).
        """
        train, held_out = whole_sequences(replay)
        self.model.fit_normalizers(train)
        piece = self.model.piece(train)
        steps = max(1, round(float(train.weight.sum()) / (self.batch_size * piece)))
        best = rolling = torch.inf
        losses: list[Tensor] = []
        epochs, loss = 0, 0.0
        if held_out is not None:
            # The same pieces after every epoch, so that luck does not pass for progress.
            judged = self.model.batch(held_out, 4 * self.batch_size)
        for epochs in range(1, self.max_epochs + 1):
            losses += [self._gradient_step(train) for _ in range(steps)]
            if held_out is None:
                continue
            loss = self._validation_loss(judged)
            # It starts above the first loss, so that it falls before it can rise.
            first = loss + 0.5 * abs(loss)
            rolling = self.persistence * (first if epochs == 1 else rolling)
            rolling += (1.0 - self.persistence) * loss
            if rolling > best:
                break
            best = rolling
        self.model.fitted.fill_(True)
        logs = {"loss": torch.stack(losses[-steps:]).mean().item(), "epochs": float(epochs)}
        if held_out is not None:
            logs["validation_loss"] = loss
        measured = train if held_out is None else held_out
        newest = Observed(*(x[:, -_MEASURED:] for x in measured))
        return len(losses), logs | adaptation_errors(self.model, newest)

    def _gradient_step(self, data: Observed) -> Tensor:
        batch = self.model.batch(data, self.batch_size)
        self.optimizer.zero_grad()
        loss = self.model.loss(batch)
        total = loss + self.model.termination_loss(batch) if self.model.terminates else loss
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def _validation_loss(self, batch: Observed) -> float:
        return self.model.loss(batch).item()


def whole_sequences(replay: SequenceReplay) -> tuple[Observed, Observed | None]:
    """All stored sequences side by side, (steps, n, ...): to learn from, and held out."""
    data, numbers = _side_by_side(replay)
    held = numbers % HELD_OUT_EVERY == HELD_OUT
    if held.all() or not held.any():
        return data, None
    return (
        Observed(*(x[:, ~held] for x in data)),
        Observed(*(x[:, held] for x in data)),
    )


def running_sequences(replay: SequenceReplay) -> Observed:
    """Each stream's newest sequence without its newest transition, (steps, n_envs, ...)."""
    data, numbers = _side_by_side(replay)
    newest = replay.last.sequence
    columns = torch.stack([torch.nonzero(numbers == number)[0, 0] for number in newest])
    running = Observed(*(x[:, columns] for x in data))
    # All that is stored of a sequence comes before its padding.
    length = (replay.sequences().valid[:, columns]).sum(0)
    weight = running.weight * (torch.arange(len(running.weight))[:, None] < length - 1)
    return running._replace(weight=weight)


def _side_by_side(replay: SequenceReplay) -> tuple[Observed, Tensor]:
    """All stored sequences, (steps, n, ...), and the number of each, shape (n,)."""
    sequences = replay.sequences()
    stored = replay.take(sequences.rows)
    weight = (sequences.valid & ~sequences.cut).float()
    data = Observed(
        stored.obs, stored.action, stored.reward, stored.next_obs, stored.terminated, weight
    )
    return data, stored.sequence[0]
