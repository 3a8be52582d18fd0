"""The quality of made rows as a person reads it."""

from __future__ import annotations

from typing import Any

# What each metric is called, and which way is better.
_TOLD = {
    "frechet": ("Fréchet distance", "lower"),
    "kid": ("kernel distance (KID)", "lower"),
    "precision": ("precision", "higher"),
    "recall": ("recall", "higher"),
    "density": ("density", "higher"),
    "coverage": ("coverage", "higher"),
    "diversity": ("diversity, made / real", "near 1"),
    "diversity_within_classes": ("  within classes", "near 1"),
}
_WIDTH = 26


def told(report: dict[str, Any]) -> str:
    """The table of a report of `measure_sources`."""
    representation, rows = report["representation"], report["rows"]
    made_by = f", {representation['dimensions']} dimensions"
    made_by += f", sha256 {representation['sha256']}" if "sha256" in representation else ""
    lines = [
        f"representation: {representation['name']}{made_by}",
        f"rows: {rows['real']} real, {rows['made']} made, {rows['held_out']} held-out real, of {report['classes']} "
        f"classes; {rows['equal_count']} of each where a metric depends on the count",
        *(f"note: {note}" for note in report["notes"]),
        "",
        f"{'':{_WIDTH}s} {'made':>10s} {'held-out':>10s}  better",
    ]
    lines += [_line(line) for line in report["metrics"]]
    return "\n".join([*lines, "", *_memorised(report["memorisation"]), *_worth(report["usefulness"])])


def _line(metric: dict[str, Any]) -> str:
    name, better = _TOLD[metric["metric"]]
    notes = [metric["note"]] if metric["note"] else []
    if "spread" in metric:
        spread = " and ".join(_number(metric["spread"][side]) for side in ("made", "held_out"))
        notes.append(f"spread {spread} over subsets of {metric['subset_size']} rows")
    note = f"  ({'; '.join(notes)})" if notes else ""
    numbers = " ".join(f"{_number(metric[side]):>10s}" for side in ("made", "held_out"))
    return f"{name:{_WIDTH}s} {numbers}  {better}{note}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _memorised(found: dict[str, Any]) -> list[str]:
    """The lines on memorisation."""
    if found["note"]:
        return [f"memorisation: {found['note']}"]
    lines = ["distance to the nearest real row, made over held-out (below 1 hints at copies)"]
    for name in ("mean", "median"):
        value, low, high = (_number(found[name][key]) for key in ("value", "low", "high"))
        lines.append(f"  {name:{_WIDTH - 2}s} {value:>10s}  95 % [{low}, {high}]")
    lines.append(f"  made rows nearer than the nearest {found['percentile']:g} % of held-out rows: "
                 f"{100 * found['nearer']:.1f} %")  # fmt: skip
    return lines


def _worth(found: dict[str, Any] | None) -> list[str]:
    """The lines on usefulness."""
    if found is None:
        return []
    kind = f"; classical is {found['classical']!r}" if found["classical"] else ""
    head = (
        f"accuracy on {found['held_out']} held-out rows of {found['classes']} classes, judged by {found['judge']}{kind}"
    )
    lines = ["", head]
    lines += [f"  {arm:{_WIDTH - 2}s} {value:10.2f} %" for arm, value in found["accuracy"].items()]
    for gain in found["gains"]:
        low, high = (_signed(end) for end in gain["ci95"])
        lines.append(f"  {gain['of']} over {gain['over']}: {_signed(gain['gain'])} points, 95 % [{low}, {high}]")
    return lines


def _signed(value: float | None) -> str:
    return "?" if value is None else f"{value:+.2f}"
