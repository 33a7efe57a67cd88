"""The leaderboard as text: CSV for programs, tables in words and few digits for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from m3po_bench.leaderboard.aggregate import INTERVAL_SEEDS, Key, reference_key
from m3po_bench.leaderboard.grid import PROTOCOL
from m3po_bench.leaderboard.pages import UNFINISHED, Page, Part, Section
from m3po_bench.leaderboard.references import ROLES, Reference, References
from m3po_bench.leaderboard.settings import ONLINE, SHOTS, TEST, UNSEEN, unseen_schedule
from m3po_bench.registry import agent_names, agent_spec, short_name


def to_csv(table: pd.DataFrame) -> str:
    """The leaderboard as CSV; four decimals, empty where a score is not known."""
    text: str = table.to_csv(index=False, float_format="%.4f", lineterminator="\n")
    return text


def make_page(
    table: pd.DataFrame,
    returns: Mapping[Key, Mapping[int, float]],
    references: References,
    suite: Mapping[str, Any],
    configs: Mapping[tuple[str, str, str], Mapping[str, Any]],
    together: pd.DataFrame,
) -> Page:
    """The leaderboard for people: a section for each env and schedule, then one over all envs.

    Args:
        table: From ``aggregate.leaderboard``, with the columns of ``entry_metrics``.
        returns: From ``aggregate.seed_returns``; every seed is shown where there are few.
        references: References by role, for each env and schedule.
        suite: Its ``name`` and how many ``seeds`` it asks for.
        configs: How runs were made, ``config`` in ``run.json``, by agent, env and schedule.
        together: From ``aggregate.over_envs``.
    """
    sections = []
    online, trials = table[table["setting"] == ONLINE], table[table["setting"].isin(SHOTS)]
    unseen = table[table["setting"] == UNSEEN]
    for names, group in online.groupby(["env", "schedule", "setting", "split"], sort=False):
        env, schedule, setting, split = map(str, names)
        known = references.get(reference_key(env, schedule, setting, split), {})
        entries = [_entry(row, returns, suite["seeds"], configs) for row in _records(group)]
        parts = [Part(_references_line(known), pd.DataFrame(entries))]
        changing = group[group["changes"] > 0]
        if len(changing):
            after = [_after_changes(row) for row in _records(changing)]
            parts.append(Part(_AFTER_CHANGES, pd.DataFrame(after)))
        tried = trials[(trials["env"] == env) & (trials["schedule"] == schedule)]
        if split == TEST and len(tried):
            parts.append(Part(_TRIALS, _shots(tried)))
        elsewhere = unseen[(unseen["env"] == env) & (unseen["schedule"] == schedule)]
        if split == TEST and len(elsewhere):
            entries = [_elsewhere(row, group) for row in _records(elsewhere)]
            text = _ELSEWHERE.format(unseen_schedule(schedule))
            parts.append(Part(text, pd.DataFrame(entries)))
        title = f"{short_name(env)}, {schedule}, {setting}, {split}"
        sections.append(Section(title, tuple(parts)))
    together = together.assign(complete=together["n_seeds"] >= suite["seeds"])
    for names, group in together.groupby(["schedule", "setting", "split"], sort=False):
        entries = [_entry_over_envs(row) for row in _records(group)]
        over = Part(_OVER_ENVS, pd.DataFrame(entries))
        sections.append(Section(f"All envs, {', '.join(map(str, names))}", (over,)))
    text = f"Protocol {PROTOCOL}. {_how_to_read(table)}"
    return Page(f"Leaderboard: {suite['name']}", text, tuple(sections))


def _named(row: Mapping[str, Any]) -> str:
    """An agent, marked where it has fewer seeds than the suite asks for."""
    return f"{row['agent']}{'' if row['complete'] else UNFINISHED}"


_TRIALS = (
    "Trials: return of an episode after K others in the same task, memory kept (K-shot; mean over "
    "seeds, whatever the schedule in training)."
)


def _shots(trials: pd.DataFrame) -> pd.DataFrame:
    complete = trials.groupby("agent")["complete"].transform("all")
    agents = [_named(row) for row in _records(trials.assign(complete=complete))]
    returns = trials.assign(agent=agents).pivot_table("return_mean", "agent", "setting")
    best_first = returns.sort_values(str(returns.columns[-1]), ascending=False)
    return best_first.map(lambda value: f"{value:.1f}").rename_axis("Agent").reset_index()


_ELSEWHERE = (
    "Under a schedule not learnt under ({}): return, score there, and by how much the score is "
    "lower than under the schedule of training."
)


def _elsewhere(row: Mapping[str, Any], group: pd.DataFrame) -> dict[str, str]:
    def shown(value: float) -> str:
        return "" if pd.isna(value) else f"{value:.2f}"

    gap = group[group["agent"] == row["agent"]]["schedule_gap"]
    return {
        "Agent": _named(row),
        "Return": f"{row['return_mean']:.1f}",
        "Score": shown(row["score"]),
        "Gap": shown(float(gap.iloc[0])),
    }


_AFTER_CHANGES = (
    "After a change of the task: mean loss of reward in the worst window, regret against the "
    "oracle at equal times, steps until the reward has recovered (restricted mean), share of "
    "changes never recovered from."
)


def _after_changes(row: Mapping[str, Any]) -> dict[str, str]:
    def shown(name: str, form: str) -> str:
        return "" if pd.isna(row[name]) else format(row[name], form)

    return {
        "Agent": _named(row),
        "Changes": shown("changes", ".0f"),
        "Drop": shown("drop", ".2f"),
        "Regret": shown("regret", ".1f"),
        "Recovery time": shown("recovery_time", ".1f"),
        "Never recovered": shown("never_recovered", ".0%"),
        "Worst tenth of returns": shown("cvar_10", ".1f"),
    }


_OVER_ENVS = (
    "Scores of all envs and seeds together: interquartile mean, mean over envs, and the optimality "
    "gap, by which scores miss 1 on average."
)


def _entry_over_envs(row: Mapping[str, Any]) -> dict[str, str]:
    few = row["n_seeds"] < INTERVAL_SEEDS
    return {
        "Agent": _named(row),
        "Envs": str(row["n_envs"]),
        "Seeds": str(row["n_seeds"]),
        "IQM": f"{row['iqm']:.2f}" + ("" if few else f" {_span(row, 'iqm', '.2f')}"),
        "Mean score": f"{row['score_mean']:.2f}",
        "Optimality gap": f"{row['optimality_gap']:.2f}",
    }


def _how_to_read(table: pd.DataFrame) -> str:
    parts = [
        "Returns are means over seeds of the mean return in the last checkpoint's test episodes.",
        "Score 0 is random, 1 is the oracle.",
    ]
    if (table["n_seeds"] < INTERVAL_SEEDS).any():
        parts.append(
            f"Where there are fewer than {INTERVAL_SEEDS} seeds no interval is given: "
            "each seed shown."
        )
    if (table["n_seeds"] >= INTERVAL_SEEDS).any():
        parts.append(
            "Brackets: 95% intervals over seeds; Student's for means, bootstrap for the IQM."
        )
    if not table["complete"].all():
        parts.append("An asterisk marks entries with fewer seeds than the suite asks for.")
    return " ".join(parts)


def _references_line(known: Mapping[str, Reference]) -> str:
    shown = [
        f"{role} {known[role].mean:.1f} ({_origin(known[role])})" for role in ROLES if role in known
    ]
    missing = [role for role in ("random", "oracle") if role not in known]
    note = f"No reference for {' and '.join(missing)}: no score." if missing else ""
    return " ".join([f"References: {'; '.join(shown)}."] * bool(shown) + [note] * bool(note))


def _origin(reference: Reference) -> str:
    if reference.steps == 0:
        return "known in closed form"
    seeds = "1 seed" if reference.n_seeds == 1 else f"{reference.n_seeds} seeds"
    return f"{seeds}, {reference.steps:,} steps"


def _entry(
    row: Mapping[str, Any],
    returns: Mapping[Key, Mapping[int, float]],
    seeds_asked: int,
    configs: Mapping[tuple[str, str, str], Mapping[str, Any]],
) -> dict[str, str]:
    key = Key(*(row[name] for name in Key._fields))
    config = configs[key.agent, key.env, key.schedule]
    seeds = ", ".join(f"{value:.1f}" for _, value in sorted(returns[key].items()))
    span = seeds if row["n_seeds"] < INTERVAL_SEEDS else _span(row, "return", ".1f")
    known = not pd.isna(row["score"])
    return {
        "Agent": _named(row),
        "Env steps": f"{config['steps']:,}",
        "Seeds": f"{row['n_seeds']} of {max(seeds_asked, row['n_seeds'])}",
        "Return": f"{row['return_mean']:.1f}",
        "Seeds' returns": span,
        "Score": f"{row['score']:.2f}" if known else "",
        "Scores from, to": _span(row, "score", ".2f") if known else "",
        "Is told": ", ".join(_privileges(config)),
    }


def _span(row: Mapping[str, Any], name: str, form: str) -> str:
    """Lowest and highest seed, or the interval in brackets."""
    span = ", ".join(format(row[f"{name}_{end}"], form) for end in ("low", "high"))
    return span if row["n_seeds"] < INTERVAL_SEEDS else f"[{span}]"


def _privileges(config: Mapping[str, Any]) -> Sequence[str]:
    """What an agent is told; a suite's variant is told what agents of its class and env are."""
    if config["agent"] in agent_names():
        return agent_spec(config["agent"]).privileges
    env_kwargs = config["env_kwargs"].items()
    told = [
        privilege
        for spec in map(agent_spec, agent_names())
        if spec.entry_point == config["entry_point"] and spec.env_kwargs.items() <= env_kwargs
        for privilege in spec.privileges
    ]
    return list(dict.fromkeys(told))


def _records(group: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in record.items()} for record in group.to_dict("records")]
