"""Writes the measured figures into README.md, docs/ and the model card, from benchmarks/results/ and the model's metrics.json.

python benchmarks/tables.py            write
python benchmarks/tables.py --check    exit with 1 when a document is not up to date
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MODEL = ROOT / "src" / "refusal_guard" / "models" / "refusal-v1"
CARD = ROOT / "benchmarks" / "card.md"
OURS = "embedded"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(figure: dict[str, Any]) -> str:
    return "–" if figure["value"] is None else f"{figure['value']:.3f}"


def _with_interval(figure: dict[str, Any]) -> str:
    return _number(figure) if figure["low"] is None else f"{_number(figure)} ({figure['low']:.3f}–{figure['high']:.3f})"


def quality() -> str:
    """One line per labelled set: ours with intervals, and the F1 of each phrase list that was installed when it ran."""
    results = read(RESULTS / "quality.json")
    cases = results.pop("LLM Guard's cases")
    peers = sorted({name for by_detector in results.values() for name in by_detector} - {OURS})
    rows = []
    for name, by_detector in results.items():
        ours = by_detector[OURS]["partial_left_out"]
        counted = by_detector[OURS]["partial_counted"]
        others = [_number(by_detector[peer]["partial_left_out"]["f1"]) if peer in by_detector else "–" for peer in peers]
        cells = [name, f"{ours['rows']:,} ({ours['refusals']:,})", _number(ours["precision"]), _number(ours["recall"])]
        cells += [_with_interval(ours["f1"]), _with_interval(ours["false_positive_rate"]), _number(ours["auroc"]), _number(counted["f1"])]
        rows.append([*cells, *others])
    header = ["rows of", "n (refusals)", "precision", "recall", "F1 (95 %)", "false-positive rate (95 %)", "AUROC", "F1, partial counted"]
    conformance = f"LLM Guard's {cases['cases']} test cases: the same validity on {cases['same_validity']}, "
    conformance += f"the same risk to the decimal on {cases['same_risk']}."
    return table([*header, *(f"F1 of {peer}" for peer in peers)], rows) + f"\n\n{conformance}"


def speed() -> str:
    """One line per figure."""
    results = read(RESULTS / "latency.json")
    pairs, scan, size, start = (results[name] for name in ("one_by_one", "bulk", "sizes", "start_up"))
    rows = [
        ["`import refusal_guard`", f"{start['import_seconds']:.2f} s"],
        ["process start to first verdict", f"{start['first_verdict_seconds']:.2f} s"],
        [
            "one pair, one core: mean, median, p99, dearest",
            " · ".join(f"{pairs['ours_ms'][k]:.1f} ms" for k in ("mean", "median", "p99", "max")),
        ],
        ["pairs that the encoder reads", f"{results['read_closely']['share']:.0%}"],
        [
            f"`scan` of {scan['rows']:,} rows, two cores",
            f"{scan['rows_per_second']:,.0f} rows/s, {scan['peak_memory_mb']:,.0f} MB at the peak",
        ],
        ["wheel, installed environment", f"{size['wheel_mb']:.0f} MB, {size['environment_mb']:.0f} MB"],
    ]
    if "pipeline_ms" in pairs:
        rows.insert(3, ["distilroberta-sized pipeline at 128 tokens, same pairs in turn: mean", f"{pairs['pipeline_ms']['mean']:.0f} ms"])
        rows.insert(4, ["times cheaper on average", f"{pairs['times_cheaper_on_average']:.0f}"])
        rows.insert(5, ["dearest pair against the mean pipeline call", f"{pairs['dearest_pair_over_mean_pipeline']:.2f}"])
    return table(["figure", "measured"], rows)


def alternatives() -> str:
    """One line per kind of model that was compared."""
    comparison = read(MODEL / "metrics.json")["comparison"]
    sets = list(next(iter(comparison.values()))["sets"])
    rows = []
    for name, found in comparison.items():
        cells = [f"{found['sets'][s]['f1']:.3f} / {found['sets'][s]['false_positive_rate']:.3f}" for s in sets]
        rows.append([name, f"{found['milliseconds']['mean']:.2f}", f"{found['megabytes']:.1f}", *cells])
    return table(["model", "ms a pair", "MB", *sets], rows)


def facts() -> str:
    """What config.json and metrics.json say of the model, in a line each."""
    config, rows = read(MODEL / "config.json"), read(MODEL / "metrics.json")["rows"]
    lines = [
        f"- threshold {config['threshold']}, chosen on {rows['held_out']:,} held-out rows",
        f"- trained on {rows['training']:,} rows; the project wrote {rows['own']:,} of all rows itself",
        f"- the first stage decides alone below logit {config['settle']['below']:.2f} and above {config['settle']['above']:.2f}",
        f"- tokens read by the encoder: {', '.join(f'{part} {count}' for part, count in config['tokens'].items())}",
    ]
    return "\n".join(lines)


def encoders() -> str:
    """One line per way to run a published classifier: how many times the throughput of one-by-one pipeline calls it has."""
    path = RESULTS / "encoders.json"
    if not path.exists():
        return "Not measured yet: `python benchmarks/encoders.py`."
    results = read(path)
    ways = list(next(iter(results.values()))["cpu_seconds"])
    rows = [[way, *(f"{found['times_one_by_one'][way]:.2f}" for found in results.values())] for way in ways]
    lines = (
        ("int8 against pipeline(batch_size=16)", "int8_times_batch_of_16", "{:.1f}"),
        ("largest difference of fp32 logits from the pipeline's", "fp32_logits_against_the_pipeline", "{:.0e}"),
        ("same verdict, int8 and fp32 (random weights)", "int8_same_verdict", "{:.1%}"),
    )
    rows += [[text, *(form.format(found[key]) for found in results.values())] for text, key, form in lines]
    return table(["", *(f"{name}-sized" for name in results)], rows)


def serve() -> str:
    """One line per level of load, and the memory over all of them."""
    path = RESULTS / "serve.json"
    if not path.exists():
        return "Not measured yet: `python benchmarks/serve.py`."
    results = read(path)
    rows = [
        [
            name,
            f"{level['requests_per_second']:,.0f}",
            *(f"{level['milliseconds'][k]:.1f} ms" for k in ("p50", "p99")),
            f"{level['errors']:,}",
        ]
        for name, level in results["levels"].items()
    ]
    memory = f"{results['megabytes'][0]:.0f} MB of memory before, {results['megabytes'][-1]:.0f} MB after."
    return table(["connections", "requests/s", "p50", "p99", "errors"], rows) + f"\n\n{memory}"


def alerts() -> str:
    """One line per pace of traffic: the default rule's false alarms and delays, each beside its closed form."""
    results = read(RESULTS / "alerts.json")
    rows: dict[int, list[str]] = {}
    for found in results["false_alarms"]:
        cell = f"{_alarms(found)}; {_tail(found['closed_form_a_day'])}"
        rows.setdefault(found["calls_a_minute"], []).append(cell)
    for found in results["delays"]:
        cell = f"{_time(found['median_seconds'])}, {found['median_calls']:,.0f} calls ({_time(found['closed_form_seconds'])})"
        rows[found["calls_a_minute"]].append(cell)
    quiet = [f"false alarms a day at {rate:.0%}" for rate in sorted({found["refusal_rate"] for found in results["false_alarms"]})]
    jumps = [f"alert after a jump to {rate:.0%}" for rate in sorted({found["refusal_rate"] for found in results["delays"]})]
    return table(["calls a minute", *quiet, *jumps], [[f"{pace:,}", *cells] for pace, cells in rows.items()])


def alert_choice() -> str:
    """One line per number of samples that was considered for the default rule."""
    rows = []
    for found in read(RESULTS / "alerts.json")["considered"]:
        alarms, delay = found["false_alarms"], found["delay"]
        rows.append([str(found["min_samples"]), _alarms(alarms), _tail(alarms["closed_form_a_day"]), _time(delay["median_seconds"])])
    return table(["min_samples", "false alarms a day", "closed form", "alert after a jump to 50%"], rows)


def _alarms(found: dict[str, Any]) -> str:
    return f"{found['a_day']:.2f} ({found['alarms']} in {found['days']:,} day{'s' * (found['days'] > 1)})"


def _tail(a_day: float) -> str:
    return f"{a_day:.0e}" if a_day > 1e-99 else "below 1e-99"


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds / 60:.1f} min"


def events() -> str:
    """One line per figure on events."""
    results = read(RESULTS / "events.json")
    rows = []
    for name, found in results["through"].items():
        memory, busy = found["memory_mb"], found["processor_us_per_event"]
        speed = f"{1e6 / busy:,.0f} a second of processor time ({busy:.0f} µs each)"
        sizes = f"{memory['after_a_tenth']:.1f} MB after a tenth, {memory['at_the_end']:.1f} MB at the end"
        rows.append([f"{found['events']:,} events through {name}", f"{speed}; {sizes}"])
    taken = results["overhead"] | {"one that hangs": results["a_hook_that_hangs"]}
    rows.append(["a scan, median: " + ", ".join(taken), " · ".join(f"{found['median_us']:.0f} µs" for found in taken.values())])
    return table(["figure", "measured"], rows)


def cascade() -> str:
    """One line per wanted agreement: what a second stage that knows the labels would be asked, and bring."""
    found = read(RESULTS / "cascade.json")["labels"]["figures"]
    rows = [
        [
            f"{line['wanted']:.1%}",
            "{:.2f}–{:.2f}".format(*line["band"]),
            f"{line['passed_on']:.0%}",
            f"{line['agreement']:.1%}",
            f"{line['f1']['cheap']:.3f} → {line['f1']['cascade']:.3f}",
        ]
        for line in found
    ]
    return table(
        ["wanted agreement with the labels", "band", "passed on", "agreement, on other rows", "F1, embedded alone → cascade"], rows
    )


def guarded_clients() -> str:
    """One line per figure of the soak and of what the guard costs a call."""
    path = RESULTS / "soak.json"
    if not path.exists():
        return "Not measured yet: `python benchmarks/soak.py`."
    results = read(path)
    load, cost = results["soak"], results["overhead"]
    call, token = cost["instant"], cost["first_token"]
    left = f"{load['connections_left']} connections, {load['files_left']} files"
    rows = [
        [
            f"{load['calls']:,} calls, {load['at_once']} at once, {load['faulty']:,} of them faulty: ended as they must",
            f"{load['right']:,}",
        ],
        ["left open behind them", left],
        ["memory after a tenth of the calls, and at the end", f"{load['memory_mb'][0]:.0f} MB, {load['memory_mb'][-1]:.0f} MB"],
        ["a clean call, plain and guarded: medians", f"{call['plain_ms']:.1f} ms, {call['guarded_ms']:.1f} ms"],
        [
            "what the guard takes of the processor a call, and as a share of 300 ms",
            f"{call['difference_cpu_ms']:.1f} ms, {cost['share_of_300_cpu_ms']:.1%}",
        ],
        ["first visible token, plain and gated: medians", f"{token['plain_ms']:.0f} ms, {token['guarded_ms']:.0f} ms"],
    ]
    return table(["figure", "measured"], rows)


PARTS: dict[str, Callable[[], str]] = {
    "quality": quality,
    "speed": speed,
    "encoders": encoders,
    "events": events,
    "cascade": cascade,
    "serve": serve,
    "alerts": alerts,
    "alert_choice": alert_choice,
    "guarded_clients": guarded_clients,
    "alternatives": alternatives,
    "facts": facts,
}


def filled(text: str) -> str:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->` by the part of that name."""
    pattern = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)
    return pattern.sub(lambda match: f"{match[1]}{PARTS[match[2]]()}\n{match[3]}", text)


def documents() -> dict[Path, str]:
    """Return each generated document and what it should hold."""
    card = Template(CARD.read_text(encoding="utf-8")).substitute({name: part() for name, part in PARTS.items()})
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {page: filled(page.read_text(encoding="utf-8")) for page in pages} | {MODEL / "README.md": card}


def main() -> int:
    stale = [path for path, text in documents().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not up to date: make docs")
        return int(bool(stale))
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
