"""The agent's own log, where a user asks for it: TensorBoard, Weights & Biases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from m3po_bench.leaderboard.grid import RunSpec
from m3po_bench.leaderboard.options import RunOptions, need

TENSORBOARD = "tensorboard"
"""Folder of event files in a run's folder."""


def check_loggers(options: RunOptions) -> None:
    """Refuse to go on where a package that is asked for is not installed.

    Raises:
        SuiteError: If so.
    """
    for package, wanted in (("tensorboard", options.tensorboard), ("wandb", options.wandb)):
        if wanted:
            need(f"--{package}", package, extra=package)


class RunLog:
    """Where a run's agent logs to; nowhere, unless a user asked for it.

    Args:
        logger: Stable-baselines3's, or None.
    """

    def __init__(self, logger: Any | None) -> None:
        self._logger = logger

    @classmethod
    def attach(cls, model: Any, spec: RunSpec, folder: Path, options: RunOptions) -> RunLog:
        """Let the agent's logger write where the options say.

        Args:
            model: An agent; one without stable-baselines3's logger is left alone.
            spec: What is run.
            folder: The run's.
            options: Where to.
        """
        wanted = options.tensorboard or options.wandb
        if not wanted or not hasattr(model, "set_logger"):
            return cls(None)
        from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat

        formats: list[Any] = []
        if options.tensorboard:
            formats.append(TensorBoardOutputFormat(str(folder / TENSORBOARD)))
        if options.wandb:
            formats.append(_wandb_writer(spec, folder, options.wandb))
        logger = Logger(folder=str(folder), output_formats=formats)
        model.set_logger(logger)
        return cls(logger)

    def add_return(self, step: int, mean_return: float) -> None:
        """Log a checkpoint's mean test return, under stable-baselines3's name for it."""
        if self._logger is not None:
            self._logger.record("eval/mean_reward", mean_return)
            self._logger.dump(step)

    def close(self, step: int, mean_return: float) -> None:
        """Log the last checkpoint's return, and nothing any more."""
        self.add_return(step, mean_return)
        if self._logger is not None:
            self._logger.close()


def _wandb_writer(spec: RunSpec, folder: Path, project: str) -> Any:
    import wandb
    from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

    class WandbWriter(KVWriter):
        """What the logger dumps, as points of one run; a run that is resumed goes on with it."""

        def __init__(self) -> None:
            identity = f"{spec.run_id}-{spec.config_hash}".replace("/", "-")
            self.run = wandb.init(
                project=project, name=spec.run_id, id=identity, resume="allow",
                group=f"{spec.env}-{spec.schedule}", config=spec.config, dir=folder,
            )  # fmt: skip

        def write(
            self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0
        ) -> None:
            kept = filter_excluded_keys(key_values, key_excluded, "wandb")
            numbers = {key: float(value) for key, value in kept.items() if _is_number(value)}
            self.run.log({**numbers, "env_steps": step})

        def close(self) -> None:
            self.run.finish()

    return WandbWriter()


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str)
