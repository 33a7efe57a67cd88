"""Commands on single models: train, eval, play and export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[..., tuple[Any, str, str]]


def test_train_then_eval(empty_folder: Path, call: Call) -> None:
    status, out, _ = call("train", "--agent", "SAC", "--env", "PointFwdBwd", "--steps", "120",
        "--preset", "tiny", "--out", "sac", "--quiet",
    )  # fmt: skip
    assert (status, out) == (0, "sac.zip\n")
    status, out, _ = call("eval", "sac.zip", "--episodes", "3", "--json")
    first = json.loads(out)
    assert status == 0
    assert (first["agent"], first["env"]) == ("SAC", "M3PO/PointFwdBwd-v0")
    assert len(first["returns"]) == 3
    again = json.loads(call("eval", "sac", "--episodes", "3", "--json")[1])
    assert again == first
    other = call("eval", "sac.zip", "--episodes", "3", "--schedule", "static", "--json")
    assert json.loads(other[1])["schedule"] == "static"
    status, out, _ = call("export", "sac.zip", "--out", "zoo")
    assert (status, out) == (0, "zoo/PointFwdBwd-hazard/SAC\n")
    kept = json.loads(call("eval", out.strip(), "--episodes", "3", "--json")[1])
    assert kept == first
    for model in ("sac.zip", out.strip()):
        status, said, _ = call("play", model, "--episode", "2", "--out", "films/x.gif")
        assert (status, said) == (0, f"films/x.gif: episode 2, return {first['returns'][2]:.2f}\n")
        assert Path("films/x.gif").read_bytes().startswith(b"GIF89a")
    note = json.loads(Path("sac.json").read_text())
    for arguments, said in (
        (("eval", "sac.zip", "--agent", "M3PO"), "sac.zip cannot be loaded as M3PO: "),
        (("eval", "sac.zip", "--env", "PointActuatorFault"), "with observation_space (6,); M3PO/"),
        (("play", "sac.zip", "--env", "PointActuatorFault"), "with observation_space (6,); M3PO/"),
        (("eval", "cut.zip"), "cut.zip cannot be loaded as SAC: "),
        (("export", "cut.zip"), "cut.zip cannot be loaded as SAC: "),
    ):
        Path("cut.zip").write_bytes(Path("sac.zip").read_bytes()[:1000])
        Path("cut.json").write_text(json.dumps(note))
        status, out, err = call(*arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert said in err
    Path("sac.json").unlink()
    assert "give --agent" in call("eval", "sac.zip")[2]
    assert "nothing beside sac.zip says its agent" in call("export", "sac.zip")[2]


def test_a_folder_of_several_runs_is_not_one_model(call: Call, tmp_path: Path) -> None:
    for seed in (1, 0):
        (tmp_path / f"M3PO/seed{seed}").mkdir(parents=True)
        (tmp_path / f"M3PO/seed{seed}/run.json").write_text("{}")
    code, _, err = call("eval", str(tmp_path / "M3PO"))
    assert code == 2
    assert err.rstrip().endswith("M3PO/seed0")
