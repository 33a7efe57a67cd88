"""Trained agents without pickles: weights in safetensors, everything else in JSON.

A zoo is a folder of agents, each in ``ENV-SCHEDULE/AGENT/`` with two files, ``agent.json`` and
``weights.safetensors``. An agent is rebuilt as it was made: the registered class, with the written
arguments, for its registered env; then it is given the weights. So both must be installed, and
nothing in the files is executed or imported by name.

Kept is what ``predict`` reads. What only learning needs (``AgentSpec.learning_only``: critics, the
models that M3PO imagines with), optimisers and replay buffers are left out, so an agent of a zoo is
for acting; to go on learning, keep SB3's archive.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from m3po_bench.registry import AgentSpec, agent_spec, make_agent, short_name, unknown_name
from m3po_bench.wrappers import layout_of

RECIPE, WEIGHTS = "agent.json", "weights.safetensors"
MAX_BYTES = 2_000_000
"""Of an agent's weights."""

MAX_PARAMETERS = 10_000_000
"""Of all networks of an agent, critics and models included."""

PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "zoo"
"""The zoo of the repository; a wheel comes without it."""

_MAX_RECIPE = 100_000
_MAX_STEPS = 1000
_TYPES: dict[str, type] = {
    "agent": str, "env": str, "schedule": str, "seed": int, "preset": str, "kwargs": dict,
    "observation": list, "action": list, "weights": str, "origin": dict,
}  # fmt: skip
_KINDS: dict[type, str] = {str: "text", int: "a whole number", dict: "an object", list: "a list"}


class ZooError(ValueError):
    """An agent that cannot be written or read; the message is one line that says why."""


@dataclass(frozen=True)
class Recipe:
    """What an agent is rebuilt from, beside its weights; the contents of ``agent.json``.

    Attributes:
        agent: Name of the registered agent.
        env: Registered id.
        schedule: When tasks changed in training.
        seed: Of which the noise of some agents' predictions is a function.
        preset: Where the arguments come from that JSON cannot hold, such as classes.
        kwargs: The agent's other arguments.
        observation: (name, width) of each block of columns that the agent sees.
        action: Lowest and highest actions.
        weights: SHA-256 of ``weights.safetensors``, in hexadecimal digits.
        origin: Where it comes from, for readers.
    """

    agent: str
    env: str
    schedule: str
    seed: int
    preset: str
    kwargs: dict[str, Any]
    observation: list[Any] = field(default_factory=list)
    action: list[Any] = field(default_factory=list)
    weights: str = ""
    origin: dict[str, Any] = field(default_factory=dict)


def load_pretrained(
    agent: str, env: str, schedule: str = "hazard", folder: str | Path | None = None
) -> Any:
    """A trained agent of a zoo, with SB3's ``predict``.

    Args:
        agent: Its name on the leaderboard.
        env: The env's id or short name.
        schedule: When tasks changed in its training.
        folder: The zoo; by default ``results/zoo`` of the repository that this package is in.

    Returns:
        The agent, made for its env. Its ``learn`` raises ``ZooError``.

    Raises:
        ZooError: If there is no such agent, or its files are damaged.
    """
    zoo, place = Path(folder or PUBLISHED), f"{short_name(env)}-{schedule}"
    known = available(zoo)
    if not known:
        raise ZooError(
            f"no agents in {zoo}: the repository's are in its results/zoo, which a wheel lacks; "
            "give folder=, or fill one with: m3po-bench export"
        )
    if place not in known:
        raise ZooError(f"no agents for {place!r} in {zoo}; there are some for: {', '.join(known)}")
    if agent not in known[place]:
        raise ZooError(f"no {agent!r} for {place} in {zoo}; there are: {', '.join(known[place])}")
    return load(zoo / place / agent)


def available(zoo: Path) -> dict[str, list[str]]:
    """Names of a zoo's agents by ``ENV-SCHEDULE``."""
    found: dict[str, list[str]] = {}
    for path in sorted(zoo.glob(f"*/*/{RECIPE}")):
        found.setdefault(path.parts[-3], []).append(path.parts[-2])
    return found


def export(model: Any, recipe: Recipe, folder: Path) -> None:
    """Write an agent, once what was written has been seen to predict as the agent does.

    Args:
        model: The trained agent.
        recipe: What it was made with; ``observation``, ``action`` and ``weights`` are filled in.
        folder: Where to: ``ENV-SCHEDULE/AGENT`` of a zoo, for ``load_pretrained`` to find it.

    Raises:
        ZooError: If the weights are too large, or the agent cannot be rebuilt from the recipe.
    """
    from safetensors.torch import save

    spec = agent_spec(recipe.agent)
    if not hasattr(getattr(model, "policy", None), "state_dict"):
        raise ZooError(f"{recipe.agent} has no policy.state_dict(), whose tensors a zoo keeps")
    recipe = replace(recipe, kwargs=_plain(recipe, spec))
    recipe = replace(recipe, **_spaces(_rebuilt(recipe).env))
    state = model.policy.state_dict()
    data = save({key: state[key].detach().clone() for key in _acting(state, spec)})
    if len(data) > MAX_BYTES:
        raise ZooError(
            f"{recipe.agent} on {recipe.env} has {len(data):,} bytes of weights that it acts with; "
            f"a zoo takes at most {MAX_BYTES:,}"
        )
    recipe = replace(recipe, weights=hashlib.sha256(data).hexdigest())
    # The recipe last: until it is there, weights that it was not written with are refused.
    files = {WEIGHTS: data, RECIPE: (json.dumps(asdict(recipe), indent=2) + "\n").encode()}
    with tempfile.TemporaryDirectory() as written:
        for name, content in files.items():
            (Path(written) / name).write_bytes(content)
        try:
            twin = load(Path(written))
        except ZooError as error:
            reason = str(error).replace(f"{written}/", "")
            raise ZooError(f"{recipe.agent} does not come back from {reason}") from None
        _check_equal(model, twin, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        temporary = folder / f".{name}"
        temporary.write_bytes(content)
        temporary.replace(folder / name)


def load(folder: Path) -> Any:
    """The agent of a zoo's folder.

    Raises:
        ZooError: If a file is missing, too large, not what it should be, or does not fit.
        UnknownNameError: If its agent or env is not registered here.
    """
    recipe = read_recipe(folder)
    weights = _read_weights(folder / WEIGHTS, recipe.weights)
    model = _rebuilt(recipe)
    for name, here in _spaces(model.env).items():
        if getattr(recipe, name) != here:
            raise ZooError(
                f"{folder / RECIPE}: made for {name} {_shown(getattr(recipe, name))}, but "
                f"{recipe.env} has {_shown(here)}"
            )
    state = model.policy.state_dict()
    _check_weights(weights, {key: state[key] for key in _acting(state, agent_spec(recipe.agent))},
                   folder / WEIGHTS)  # fmt: skip
    model.policy.load_state_dict(weights, strict=False)
    model.learn = _only_acts
    return model


def _only_acts(*_: Any, **__: Any) -> Any:
    """In place of ``learn``: what that needs is not in a zoo, and from anew it would be lost."""
    raise ZooError(
        "an agent of a zoo is for acting: critics, models, optimisers and replay are not kept "
        "there; learn on from the .zip that `m3po-bench train` or SB3's save wrote"
    )


def read_recipe(folder: Path) -> Recipe:
    """What a zoo's agent is rebuilt from; raises as ``load``."""
    path = folder / RECIPE

    def not_a_number(text: str) -> float:
        raise ValueError(f"{text} is not JSON")

    try:
        found = json.loads(_read(path, _MAX_RECIPE), parse_constant=not_a_number)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ZooError):
            raise
        raise ZooError(f"{path}: not JSON: {_one_line(error)}") from None
    if not isinstance(found, dict):
        raise ZooError(f"{path}: expected an object, got {_shown(found)}")
    for key in found:
        if key not in _TYPES:
            raise ZooError(f"{path}: {unknown_name('key', key, _TYPES)}")
    for key, kind in _TYPES.items():
        if type(found.get(key)) is not kind:
            raise ZooError(f"{path}: {key} = {_shown(found.get(key))}, expected {_KINDS[kind]}")
    return Recipe(**found)


def env_kwargs(recipe: Recipe) -> dict[str, Any]:
    """Arguments of the recipe's env, beside its split."""
    return {**agent_spec(recipe.agent).env_kwargs, "schedule": recipe.schedule}


def _rebuilt(recipe: Recipe) -> Any:
    """The agent without its weights, for one env copy."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    agent_spec(recipe.agent)
    if recipe.env not in gym.registry:  # gym.make would import a module named in an id
        raise unknown_name("env", recipe.env, [name for name in gym.registry if "M3PO/" in name])
    kwargs = dict(recipe.kwargs)
    if "_init_setup_model" in kwargs:
        raise ZooError(f"{recipe.agent}: _init_setup_model is not for a recipe: expected none")
    if "device" in kwargs:  # where it was trained; there may be none such here
        kwargs["device"] = "cpu"
    try:
        # A VecEnv of one: some agents would make a hundred copies of a single env to train in.
        env = DummyVecEnv([lambda: gym.make(recipe.env, split="train", **env_kwargs(recipe))])
        with _limited_parameters(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # arguments that were meant for those copies
            return make_agent(recipe.agent, env, recipe.preset, recipe.seed, **kwargs)
    except Exception as error:  # whatever a class makes of strange arguments
        raise ZooError(
            f"{recipe.agent} cannot be made for {recipe.env} as written: "
            f"{type(error).__name__}: {_one_line(error)}"
        ) from None


@contextmanager
def _limited_parameters() -> Iterator[None]:
    """Inside, networks that are too large are refused before memory is filled with them."""
    from torch.nn.modules.module import register_module_parameter_registration_hook

    count = 0

    def check(module: Any, name: str, parameter: Any) -> None:
        nonlocal count
        count += 0 if parameter is None else parameter.numel()
        if count > MAX_PARAMETERS:
            raise ZooError(f"networks of more than {MAX_PARAMETERS:,} parameters")

    hook = register_module_parameter_registration_hook(check)
    try:
        yield
    finally:
        hook.remove()


def _spaces(env: Any) -> dict[str, Any]:
    """Entries of a recipe that say what an env shows and takes, as JSON values."""
    low, high = env.action_space.low, env.action_space.high
    return {
        "observation": [list(block) for block in layout_of(env).blocks],
        "action": [np.asarray(end, dtype=np.float64).tolist() for end in (low, high)],
    }


def _plain(recipe: Recipe, spec: AgentSpec) -> dict[str, Any]:
    """The arguments as JSON values; those that the preset has and JSON cannot hold are left to it.

    Raises:
        ZooError: If another one is no JSON value.
    """
    preset, found = spec.kwargs(recipe.preset), {}
    for name, value in recipe.kwargs.items():
        try:
            json.dumps(preset.get(name))
        except TypeError:
            continue
        try:
            found[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            raise ZooError(
                f"argument {name} = {_shown(value)} of {recipe.agent}: expected JSON values, or "
                f"the value that its preset {recipe.preset!r} has"
            ) from None
    return found


def _acting(state: Mapping[str, Any], spec: AgentSpec) -> list[str]:
    """Names of the weights that ``predict`` reads."""
    return [name for name in state if not name.startswith(spec.learning_only)]


def _read(path: Path, limit: int) -> bytes:
    if not path.is_file():
        raise ZooError(f"{path}: missing")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ZooError(f"{path}: more than {limit:,} bytes")
    return content


def _read_weights(path: Path, sha256: str) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    data = _read(path, MAX_BYTES)
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise ZooError(
            f"{path}: its SHA-256 is {found[:12]}..., but {RECIPE} was written for weights of "
            f"{_shown(sha256[:12])}...: the two are not of one agent, or one was edited; export "
            "it again"
        )
    try:
        return parse(data)
    except SafetensorError as error:
        raise ZooError(f"{path}: not safetensors: {_one_line(error)}") from None


def _check_weights(found: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:
    for name in sorted({*found, *expected}):
        if name not in expected:
            raise ZooError(f"{path}: {unknown_name('weight', name, expected)}")
        if name not in found:
            raise ZooError(f"{path}: weight {name!r} is missing")
        have, want = (f"{x.dtype} {tuple(x.shape)}" for x in (found[name], expected[name]))
        if have != want:
            raise ZooError(f"{path}: weight {name!r} is {have}, expected {want}")


def _check_equal(model: Any, twin: Any, recipe: Recipe) -> None:
    """Both must predict the same, bit for bit, along an episode."""
    obs, start = twin.env.reset(), np.ones(1, bool)
    states: list[Any] = [None, None]
    for step in range(_MAX_STEPS):
        actions = []
        for i, player in enumerate((model, twin)):
            action, states[i] = player.predict(
                obs, state=states[i], episode_start=start, deterministic=True
            )
            actions.append(action)
        if not np.array_equal(*actions):
            raise ZooError(
                f"{recipe.agent} on {recipe.env} predicts {_shown(actions[0].tolist())} at step "
                f"{step}, rebuilt {_shown(actions[1].tolist())}: it has more to it than weights, "
                "arguments and seed, or was made with others than are written"
            )
        obs, _, start, _ = twin.env.step(actions[0])
        if start.all():
            return


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
