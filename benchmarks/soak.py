"""Guarded OpenAI clients under load and faults, and what the guard costs.

    python benchmarks/soak.py [--calls N] [--at-once N] [--faults SHARE] [--out FILE]

Half of the calls are made by threads, half by coroutines, against the tests' loopback server in a process of its own. Every call has a
known outcome: each that ends otherwise, hangs, or makes more attempts than its policy grants is counted. Then clean calls of a plain and
a guarded client take turns: the cost of a call, its share of one of 300 ms, and the time to the first visible token with the gate.
Needs the openai package and Linux (open files and memory are read from /proc).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import openai

from refusal_guard import Fallback, Guard, InputError, Report, Retry, report_of
from refusal_guard_openai import guard_openai

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "soak.json"
sys.path += [str(HERE.parent / "tests"), str(HERE.parent / "tests" / "integrations")]
MESSAGES: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
POLICY = Retry(1).then(Fallback("answers")).within(attempts=3)
# What a model does, and the verdicts of the attempts that follow from it; None: the call ends in an error of the SDK.
CLEAN = {
    "answers": [False],
    "refuses": [True, True, False],
    "turns": [True, True, False],
    "declares": [True, False],
    "filters": [True, False],
}
FAULTS = {"blocks": [True, False], "limits": None, "breaks": None, "cuts": None, "stalls": None, "garbage": [False], "nothing": [False]}
RELEASED = [True]  # a streamed refusal behind the gate is flagged at the end
STALL_SECONDS, MODEL_SECONDS, PAUSE_SECONDS = 1.0, 0.3, 0.02


@dataclass(frozen=True)
class Call:
    """One call of the load, and the verdicts it has to end with."""

    model: str
    streamed: bool
    responses: bool
    expected: list[bool] | None

    def asked(self, client: Any) -> Any:
        """Ask; an awaiting client returns what has to be awaited."""
        more: dict[str, Any] = {"model": self.model, "timeout": STALL_SECONDS if self.model == "stalls" else 120}
        more |= {"stream": True} if self.streamed else {}
        return (
            client.responses.create(input="Hello", **more) if self.responses else client.chat.completions.create(messages=MESSAGES, **more)
        )


def load(calls: int, faults: float) -> list[Call]:
    """Return the calls of the load, the same in every run."""
    chance, planned = random.Random(7), []
    for _ in range(calls):
        outcomes: dict[str, Any] = FAULTS if chance.random() < faults else CLEAN
        model = chance.choice(list(outcomes))
        streamed, responses = chance.random() < 0.5, chance.random() < 0.3
        planned.append(Call(model, streamed, responses, RELEASED if model == "turns" and streamed else outcomes[model]))
    return planned


def served(pipe: Connection, wait: float, pause: float) -> None:
    """Serve until told to stop, in a process of its own; then tell whether all connections went."""
    from loopback_openai import LoopbackOpenAI

    with LoopbackOpenAI(wait=wait, pause=pause) as server:
        server.requests = deque(maxlen=1)
        pipe.send(server.url)
        pipe.recv()
        server.drained(10)
        pipe.send(server.connections)


@contextmanager
def server(wait: float = 0.0, pause: float = 0.0, left: dict[str, int] | None = None) -> Iterator[str]:
    """Run a server; `left` takes the number of connections that stayed open."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=served, args=(there, wait, pause), daemon=True)
    process.start()
    yield here.recv()
    here.send("stop")
    stayed = here.recv()
    if left is not None:
        left["connections"] = stayed
    process.join(10)
    for end in (here, there, process):
        end.close()


def judged(call: Call, report: Report | None, error: Exception | None) -> str:
    """Return "right", or what is wrong with how a call ended."""
    if error is not None:
        typed = isinstance(error, openai.OpenAIError) or type(error).__module__.split(".")[0] in ("httpx", "httpx2")
        return "right" if call.expected is None and typed else f"{call.model}: {type(error).__name__}"
    if report is None or call.expected is None:
        return f"{call.model}: no error and no report"
    if len(report.attempts) > 3:
        return f"{call.model}: {len(report.attempts)} attempts"
    found = [attempt.verdict.refused for attempt in report.attempts]
    return "right" if found == call.expected else f"{call.model}: verdicts {found}"


def blocking(call: Call, client: openai.OpenAI) -> str:
    try:
        answer = call.asked(client)
        if call.streamed:
            for _ in answer:
                pass
        return judged(call, report_of(answer), None)
    except InputError:
        return judged(call, None, None)
    except Exception as error:
        return judged(call, None, error)


async def awaiting(call: Call, client: openai.AsyncOpenAI) -> str:
    try:
        answer = await call.asked(client)
        if call.streamed:
            async for _ in answer:
                pass
        return judged(call, report_of(answer), None)
    except InputError:
        return judged(call, None, None)
    except Exception as error:
        return judged(call, None, error)


def by_threads(url: str, calls: list[Call], at_once: int, guard: Guard, memory: list[float]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    with openai.OpenAI(base_url=url, api_key="key", max_retries=0) as plain, ThreadPoolExecutor(at_once) as pool:
        client = guard_openai(plain, guard, POLICY, "gate")
        for done, outcome in enumerate(pool.map(lambda call: blocking(call, client), calls)):
            outcomes[outcome] += 1
            _note(memory, done, len(calls))
    return outcomes


async def by_coroutines(url: str, calls: list[Call], at_once: int, guard: Guard, memory: list[float]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    room = asyncio.Semaphore(at_once)
    async with openai.AsyncOpenAI(base_url=url, api_key="key", max_retries=0) as plain:
        client = guard_openai(plain, guard, POLICY, "gate")

        async def one(call: Call) -> str:
            async with room:
                return await awaiting(call, client)

        for done, coming in enumerate(asyncio.as_completed([one(call) for call in calls])):
            outcomes[await coming] += 1
            _note(memory, done, len(calls))
    await asyncio.sleep(0.1)
    outcomes["tasks left"] = len(asyncio.all_tasks()) - 1
    return +outcomes


def _note(memory: list[float], done: int, calls: int) -> None:
    """Note the resident MB at each tenth of the way."""
    if (done + 1) % max(1, calls // 10) == 0:
        gc.collect()
        memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def soak(calls: int, at_once: int, faults: float) -> dict[str, Any]:
    """Make the calls, and return how they ended and what they left."""
    planned, guard, memory, left = load(calls, faults), Guard(), [], {"connections": 0}
    guard.scan("Why?", "I'm sorry, but I can't help with that.")
    began = time.perf_counter()
    with server(left=left) as url:
        files = open_files()
        outcomes = by_threads(url, planned[: calls // 2], at_once, guard, memory)
        outcomes += asyncio.run(by_coroutines(url, planned[calls // 2 :], at_once, guard, memory))
        gc.collect()
        left["files"] = max(0, open_files() - files)
    return {
        "calls": calls,
        "at_once": at_once,
        "faulty": sum(call.model in FAULTS for call in planned),
        "right": outcomes.pop("right", 0),
        "wrong": dict(outcomes),
        "connections_left": left["connections"],
        "files_left": left["files"],
        "memory_mb": [round(value, 1) for value in memory],
        "seconds": round(time.perf_counter() - began, 1),
    }


def in_turns(plain: Any, guarded: Any, measure: Any, repetitions: int) -> tuple[float, float]:
    """Return the median seconds of a plain and of a guarded call that take turns, after one of each that is not counted."""
    seconds = [(measure(plain), measure(guarded)) for _ in range(repetitions + 1)][1:]
    return statistics.median(first for first, _ in seconds), statistics.median(second for _, second in seconds)


def whole_seconds(client: openai.OpenAI) -> float:
    began = time.perf_counter()
    client.chat.completions.create(model="answers", messages=MESSAGES)
    return time.perf_counter() - began


def first_token_seconds(client: openai.OpenAI) -> float:
    began, first = time.perf_counter(), 0.0
    for chunk in client.chat.completions.create(model="answers", messages=MESSAGES, stream=True):
        if not first and chunk.choices[0].delta.content:
            first = time.perf_counter() - began
    return first


def costs(repetitions: int) -> dict[str, Any]:
    """Return what the guard costs a clean call, and the gate the first token."""
    figures: dict[str, Any] = {}
    for name, wait, pause, measure in (
        ("instant", 0.0, 0.0, whole_seconds),
        ("model_300_ms", MODEL_SECONDS, 0.0, whole_seconds),
        ("first_token", MODEL_SECONDS, PAUSE_SECONDS, first_token_seconds),
    ):
        with server(wait, pause) as url, openai.OpenAI(base_url=url, api_key="key", max_retries=0) as client:
            plain, guarded = in_turns(client, guard_openai(client, stream="gate"), measure, repetitions)
        figures[name] = {"plain_ms": plain * 1e3, "guarded_ms": guarded * 1e3, "difference_ms": (guarded - plain) * 1e3}
    figures["share_of_300_ms"] = figures["instant"]["difference_ms"] / (MODEL_SECONDS * 1e3)
    return figures


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--calls", type=int, default=10_000)
    options.add_argument("--at-once", type=int, default=64)
    options.add_argument("--faults", type=float, default=0.2)
    options.add_argument("--repetitions", type=int, default=40)
    options.add_argument("--out", type=Path, default=RESULTS)
    chosen = options.parse_args()
    result = {
        "openai": openai.__version__,
        "soak": soak(chosen.calls, chosen.at_once, chosen.faults),
        "costs": costs(chosen.repetitions),
    }
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
