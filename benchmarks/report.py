"""What every measurement shares: interleaved rounds, rows with medians, tables, and what the numbers depend on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dicomtorch._version import __version__

OURS = "dicomtorch"
PACKAGES = (
    *("torch", "numpy", "pydicom", "SimpleITK", "imagecodecs", "pyarrow"),
    *("monai", "torchio", "highdicom", "dicomsdl", "fastdicom", "pillow"),
    *("pylibjpeg-openjpeg", "pylibjpeg-rle", "pylibjpeg-libjpeg", "pyjpegls", "python-gdcm"),
)

LEAST_SECONDS = 0.25  # of one round of one competitor; what is faster is repeated

Result = dict[str, Any]
Once = Callable[[], int]


def rate(count: int, work: Callable[[], object], cpu: list[float] | None = None) -> float:
    """Units per second of one run; milliseconds of CPU for each unit are added to `cpu`."""
    began, used = time.perf_counter(), time.process_time()
    work()
    if cpu is not None:
        cpu.append(1000 * (time.process_time() - used) / count)
    return count / (time.perf_counter() - began)


def interleaved(able: dict[str, Once], repeats: int) -> dict[str, list[float]]:
    """Units/s of each repeat; the first round warms up and does not count.

    Each round runs everybody once, so that a machine that slows down slows everybody down.
    """
    rates: dict[str, list[float]] = {name: [] for name in able}
    times = dict.fromkeys(able, 1)
    for repeat in range(repeats + 1):
        for name, once in able.items():
            start = time.perf_counter()
            count = sum(once() for _ in range(times[name]))
            spent = time.perf_counter() - start
            if repeat:
                rates[name].append(count / spent)
            else:
                times[name] = max(1, round(LEAST_SECONDS / spent))
    return rates


def rows(
    rates: dict[str, list[float]], missing: dict[str, str], base: str, **common: Any
) -> list[Result]:
    """One row a competitor; `times_base` is how many times the median of `base` it reaches."""
    reference = statistics.median(rates[base]) if base in rates else None
    measured: list[Result] = [
        {
            **common,
            "library": name,
            "frames_per_second": statistics.median(values),
            "repeats": values,
            "times_base": reference and statistics.median(values) / reference,
            "base": base,
        }
        for name, values in rates.items()
    ]
    return measured + [{**common, "library": name, "missing": why} for name, why in missing.items()]


def table(title: str, results: Sequence[Result], columns: Sequence[str]) -> str:
    """Markdown: the columns named, then frames/s and the ratio, or why there are none."""
    base = next((row["base"] for row in results if "base" in row), "base")
    heads = (*columns, "library", "frames/s", f"times {base}")
    lines = [f"\n### {title}\n", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in results:
        if "missing" in row:
            numbers = f"- | not measured: {row['missing']}"
        else:
            ratio = row["times_base"]
            numbers = (
                f"{row['frames_per_second']:,.0f} | {'-' if ratio is None else f'{ratio:.2f}'}"
            )
        cells = [str(row.get(name, "-")) for name in columns]
        lines.append(f"| {' | '.join(cells)} | {row['library']} | {numbers} |")
    return "\n".join(lines)


def plain_table(title: str, results: Sequence[Result], columns: Sequence[str]) -> str:
    """Markdown of rows that are no rates."""
    lines = [f"\n### {title}\n", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for row in results:
        cells = []
        for name in columns:
            value = row.get(name, row.get("missing", "-") if name == columns[-1] else "-")
            cells.append(f"{value:,.3g}" if isinstance(value, float) else str(value))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def pivot(title: str, results: Sequence[Result], down: str, across: str, value: str) -> str:
    """Markdown with a row for each `down` and a column for each `across`; "-" where there is no value."""
    columns = list(dict.fromkeys(str(row[across]) for row in results))
    cells: dict[str, dict[str, str]] = {}
    for row in results:
        found = row.get(value, "-")
        shown = f"{found:,.3g}" if isinstance(found, float) else str(found)
        cells.setdefault(str(row[down]), {})[str(row[across])] = shown
    names = [column.replace("_", " ") for column in columns]
    lines = [
        f"\n### {title}\n",
        f"| {down} | {' | '.join(names)} |",
        "|" + "---|" * (len(names) + 1),
    ]
    for name, there in cells.items():
        lines.append(f"| {name} | {' | '.join(there.get(column, '-') for column in columns)} |")
    return "\n".join(lines)


def first_line(error: BaseException) -> str:
    """What went wrong, short, without paths of this machine."""
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0]
    words = [Path(word.strip("'\"")).name if "/" in word else word for word in line.split()]
    return " ".join(words).replace("|", "/")[:120]


def versions() -> dict[str, str]:
    """Of everything that takes part; "" for what is not installed."""
    found = {"dicomtorch": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def machine() -> dict[str, Any]:
    """What the numbers depend on; no names of hosts or people."""
    cpu = platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = [round(one, 1) for one in os.getloadavg()] if hasattr(os, "getloadavg") else []
    return {
        "cpu": cpu,
        "usable_cores": usable,
        "system": f"{platform.system()} {platform.release()}",
        "load_before": load,
    }


def best(loading: Sequence[Result]) -> dict[str, dict[str, float]]:
    """For each case and library the best of its loaders, in multiples of the best of plain pydicom.

    Ours are told apart: they are what somebody chooses from.
    """
    found: dict[str, dict[str, float]] = {}
    for row in loading:
        case = found.setdefault(row["data"], {})
        name = row["library"]
        if name == OURS:
            unit = "workers" if row["loader"] == "DataLoader" else "threads"
            name = f"{OURS}, {row['loader']}, {row['workers']} {unit}"
        case[name] = max(case.get(name, 0.0), row.get("times_base") or 0.0)
    return found


def summary(loading: Sequence[Result]) -> str:
    """The main table: ratios only, because absolute numbers belong to a machine."""
    found = best(loading)
    names = dict.fromkeys(name for case in found.values() for name in case)
    lines = [
        "\n### Shuffled epochs, frames/s in multiples of plain pydicom at its best\n",
        f"| | {' | '.join(case.replace('_', ' ') for case in found)} |",
        "|" + "---|" * (len(found) + 1),
    ]
    for name in sorted(names, key=lambda name: name.startswith(OURS)):
        cells = [f"{case[name]:.2g}" if case.get(name) else "-" for case in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def chart(path: Path, loading: Sequence[Result]) -> None:
    """Draws the best of each library, case by case, as multiples of the best of plain pydicom."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    found = best(loading)
    across = min(4, len(found))
    down = -(-len(found) // across)
    figure, axes = pyplot.subplots(
        down, across, figsize=(4.6 * across, 4.2 * down), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(found) :]:
        axis.set_axis_off()
    for axis, (case, ratios) in zip(axes.flat, found.items(), strict=False):
        names = sorted((name for name in ratios if ratios[name]), key=ratios.__getitem__)
        colors = ["tab:orange" if name.startswith(OURS) else "tab:gray" for name in names]
        bars = axis.barh(names, [ratios[name] for name in names], color=colors)
        axis.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
        axis.set(xscale="log", title=case.replace("_", " "))
        axis.margins(x=0.2)
        axis.tick_params(labelsize=8)
        axis.tick_params(axis="x", which="both", bottom=False, labelbottom=False)
        axis.axvline(1, color="black", linewidth=0.5)
    figure.supxlabel("frames/s, times plain pydicom in a DataLoader (its best number of workers)")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
