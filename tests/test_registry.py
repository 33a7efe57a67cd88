"""Names, presets and plugins."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from m3po_bench import registry
from m3po_bench.registry import (
    AgentSpec,
    UnknownNameError,
    agent_names,
    agent_spec,
    load_plugins,
    make_agent,
    register_agent,
    unknown_name,
)


def test_unknown_names_come_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown agent 'M3P0'; nearest: M3PO"):
        agent_spec("M3P0")
    with pytest.raises(UnknownNameError, match=r"unknown preset 'tinny'; nearest: tiny"):
        make_agent("M3PO", None, preset="tinny")
    assert "known: a, b" in str(unknown_name("thing", "zzzzzz", ["b", "a"]))
    assert "known: none" in str(unknown_name("thing", "zzzzzz", []))


def test_an_env_may_be_given_by_its_short_name() -> None:
    for env in ("PointFwdBwd", "M3PO/PointFwdBwd-v0", "m3po_bench:M3PO/PointFwdBwd-v0"):
        found = make_agent("Oracle", env, preset="tiny").env.get_attr("spec")[0]
        assert (found.id, found.kwargs["visibility"]) == ("M3PO/PointFwdBwd-v0", "oracle")
    with pytest.raises(UnknownNameError, match="unknown env 'PointFwdBw'; nearest: PointFwdBwd"):
        make_agent("SAC", "PointFwdBw", preset="tiny")


def test_a_preset_lies_over_default() -> None:
    spec = AgentSpec("X", "m:X", {"default": {"a": 1, "b": 1}, "tiny": {"b": 2}})
    assert spec.kwargs("tiny") == {"a": 1, "b": 2}
    assert spec.kwargs("lite") == {"a": 1, "b": 1}


def test_a_name_belongs_to_one_agent() -> None:
    register_agent(agent_spec("M3PO"))  # the same again is harmless
    with pytest.raises(ValueError, match="registered already"):
        register_agent(AgentSpec("M3PO", "elsewhere:M3PO"))
    with pytest.raises(UnknownNameError, match="nearest: tiny"):
        register_agent(AgentSpec("New", "m:New", {"tinny": {}}))
    assert "New" not in agent_names()


def test_plugins_register_and_a_failing_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def bring() -> None:
        register_agent(AgentSpec("FromPlugin", "plugin:Agent"))

    def fail() -> None:
        raise RuntimeError("no luck")

    def plugin(name: str, function: Any) -> Any:
        return SimpleNamespace(name=name, value=f"package:{name}", load=lambda: function)

    plugins = [plugin("broken", fail), plugin("good", bring)]
    monkeypatch.setattr(registry, "entry_points", lambda group: plugins)
    monkeypatch.setattr(registry, "_AGENTS", dict(registry._AGENTS))
    with pytest.warns(RuntimeWarning, match=r"plugin 'broken'.*no luck"):
        load_plugins()
    assert "FromPlugin" in agent_names()


def test_a_family_of_baselines_may_be_the_first_import() -> None:
    code = "import m3po_baselines.learning_to_adapt, m3po_bench; print(*m3po_bench.agent_names())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"M3PO", "GrBAL", "PEARL"} <= set(done.stdout.split())


def _settings(name: str, preset: str) -> str:
    """A hash of every argument that the agent is made with, its class's defaults among them."""
    spec = agent_spec(name)
    defaults = {name: p.default for name, p in spec.parameters().items()}
    settings = {k: v for k, v in {**defaults, **spec.kwargs(preset)}.items() if k not in _NO_MATTER}
    text = json.dumps(settings, sort_keys=True, default=lambda v: getattr(v, "__qualname__", "?"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_NO_MATTER = {
    "policy", "env", "seed", "device", "verbose", "tensorboard_log", "stats_window_size",
    "monitor_wrapper", "supported_action_spaces", "_init_setup_model",
}  # fmt: skip
"""Arguments that decide no result."""
_OWN = ("m3po_bench.", "m3po_baselines.")
NAMES = agent_names()  # when collected: other tests register toys of theirs
_SETTINGS = Path(__file__).with_name("agent_settings.json")


def test_who_changes_a_default_raises_the_revision() -> None:
    """Or else results of before would be continued with another agent's."""
    names = [name for name in NAMES if agent_spec(name).entry_point.startswith(_OWN)]
    made = {
        name: {
            preset: [agent_spec(name).revisions.get(preset, 0), _settings(name, preset)]
            for preset in ("default", "lite", "quick")
        }
        for name in names
    }
    recorded = json.loads(_SETTINGS.read_text(encoding="utf-8"))
    if made == recorded:
        return
    changed = [
        f"{name}, {preset}"
        for name, by_preset in made.items()
        for preset, found in by_preset.items()
        if recorded.get(name, {}).get(preset) != found
    ]
    pytest.fail(
        f"other settings than in {_SETTINGS.name}: {'; '.join(changed)}. If the registry's presets "
        "do not show the change, raise that preset's number in AgentSpec.revisions; then write "
        f"there:\n{json.dumps(made, indent=1)}"
    )
