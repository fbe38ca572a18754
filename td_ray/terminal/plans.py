"""What ``td-ray plan`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from td_ray.printable import printable
from td_ray.terminal.tables import plain_console


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print a plan in words."""
    lines = {
        "models": f"{plan['models']} ({plan['representations']} representations)",
        "tasks": _tasks(plan),
        "samples": "; ".join(map(_samples, plan["samples"])),
        "units of work": _states(plan),
        "heads to fit": f"{plan['heads']:,}",
        **({"searches": _searches(plan)} if plan["searches"] else {}),
        "pairs": _pairs(plan),
        "features": _features(plan),
        **({"stand-ins": f"{plan['stand_ins']:,} heads to fit"} if plan["stand_ins"] else {}),
        **({"probabilities": _probabilities(plan)} if plan["probability_bytes"] else {}),
        "memory": f"up to {plan['trial_bytes'] / 2**30:.1f} GiB a trial",
        "time": f"roughly {_duration(plan['core_seconds'])} on one core, "
        "without forward passes of networks; --on says more",
        "output": plan["output"],
    }
    if "forecast" in plan:
        del lines["time"]
        lines |= _forecast(plan["forecast"])
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, text in lines.items():
        table.add_row(name, printable(text))
    plain_console().print(table)


def _forecast(found: Mapping[str, Any]) -> dict[str, str]:
    """What the plan takes on some machines."""
    machines = [f"{_several(found['nodes'], 'node')} of {_several(found['cpus'], 'CPU')}"]
    machines += [_several(found["gpus"], "GPU")] if found["gpus"] else []
    stages = [f"{_duration(seconds)} {name}" for name, seconds in found["stages"].items()]
    hours = [f"{found['core_hours']:,.1f} core hours at work"]
    if found["gpus"]:
        hours += [f"{found['gpu_hours']:,.1f} GPU hours at work"]
        hours += [f"{found['gpu_hours_held']:,.1f} GPU hours held"]
    sizes = {"in the output": "output_bytes", "of features": "cache_bytes"}
    storage = [f"{_size(found[name])} {where}" for where, name in sizes.items()]
    lines = {
        "machines": " and ".join(machines),
        "time": f"{'at least' if found['uncounted'] else 'roughly'} "
        f"{_duration(found['seconds'])}: {', '.join(stages)}; waiting in a queue is not in it",
        "binds": found["binds"],
        "hours": ", ".join(hours),
        "storage": ", ".join(storage),
        "network": f"{_size(found['network_bytes'])} between nodes and the output",
        "prices": "; ".join(found["prices"]),
    }
    if found["guesses"]:
        lines["guessed"] = "; ".join(found["guesses"])
    if found["uncounted"]:
        first = next(iter(found["uncounted"].values()))
        lines["not counted"] = f"passes of {_several(len(found['uncounted']), 'model')}: {first}"
    return lines


def _several(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _size(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB" if size < 2**30 else f"{size / 2**30:,.1f} GiB"


def _pairs(plan: Mapping[str, Any]) -> str:
    text = f"{plan['pairs']:,}, {plan['pairs_finished']:,} there already"
    text += f", {plan['pairs_failed']:,} failed before" if plan["pairs_failed"] else ""
    return text if plan["examples"] is None else f"{text}, on {plan['examples']:,} samples each"


def _searches(plan: Mapping[str, Any]) -> str:
    return f"{plan['searches']:,} choices among {plan['candidates']:,} candidates, before the heads"


def _tasks(plan: Mapping[str, Any]) -> str:
    families = plan["families"]
    if not families:
        return f"{plan['tasks']:,}"
    in_families = ", ".join(f"{count:,} of {name}" for name, count in families.items())
    alone = plan["tasks"] - sum(families.values())
    return f"{plan['tasks']:,}: {alone:,} alone, {in_families}"


def _states(plan: Mapping[str, Any]) -> str:
    words = [f"{plan['units']:,}"]
    notes = {
        "finished": "there already",
        "failed": "failed before",
        "missing": "to do",
        "unknown": "whose files' digests are not known yet",
    }
    words += [f"{plan[state]:,} {note}" for state, note in notes.items() if plan[state]]
    return ": ".join([words[0], ", ".join(words[1:])])


def _samples(data: Mapping[str, Any]) -> str:
    text = f"{data['data']}: {data['train']:,} to train on, {data['evaluation']:,} held out"
    text += f", {data['neither']:,} in neither split" if data["neither"] else ""
    text += f", {data['left_out']:,} left out as not all models have them" * bool(data["left_out"])
    return text if data["stratified"] else f"{text}, cut without regard to classes"


def _features(plan: Mapping[str, Any]) -> str:
    size = f"{plan['feature_bytes'] / 2**20:,.0f} MiB"
    text = f"{plan['extractions']:,} arrays to extract, {size} in all"
    if plan["kept_bytes"]:
        text += f", {plan['kept_bytes'] / 2**20:,.0f} MiB kept for measures of them"
    return f"{text} (widths assumed)" if plan["widths_assumed"] else text


def _probabilities(plan: Mapping[str, Any]) -> str:
    return f"{plan['probability_bytes'] / 2**20:,.0f} MiB to write, before compression"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
