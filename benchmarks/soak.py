"""Guarded OpenAI clients under load and faults, and what the guard costs.

    python benchmarks/soak.py [--calls N] [--at-once N] [--faults SHARE] [--out FILE]

Half of the calls are made by threads, half by coroutines, against the tests' loopback server in a process of its own. Every call has a
known outcome: each that ends otherwise, hangs, or makes more attempts than its policy grants is counted. Then clean calls of a plain and
a guarded client take turns: the cost of a call, its share of one of 300 ms, and the time to the first visible token with the gate, by the
clock and of the processor; on a busy machine only the latter means anything.
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
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import openai

from refusal_guard import Fallback, Guard, Report, Retry, report_of
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


def blocking(call: Call, client: openai.OpenAI) -> Report:
    answer = call.asked(client)
    if call.streamed:
        deque(answer, maxlen=0)
    return report_of(answer)


async def awaiting(call: Call, client: openai.AsyncOpenAI, room: asyncio.Semaphore) -> Report:
    async with room:
        answer = await call.asked(client)
        if call.streamed:
            async for _ in answer:
                pass
        return report_of(answer)


def outcome(call: Call, done: Future[Report] | asyncio.Task[Report]) -> str:
    """Return "right", or what is wrong with how a call ended."""
    if error := done.exception():
        typed = isinstance(error, openai.OpenAIError) or type(error).__module__.split(".")[0] in ("httpx", "httpx2")
        return "right" if call.expected is None and typed else f"{call.model}: {type(error).__name__}"
    attempts = done.result().attempts
    if len(attempts) > 3:
        return f"{call.model}: {len(attempts)} attempts"
    found = [attempt.verdict.refused for attempt in attempts]
    return "right" if found == call.expected else f"{call.model}: verdicts {found}"


def by_threads(url: str, calls: list[Call], at_once: int, guard: Guard, memory: list[float]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    with openai.OpenAI(base_url=url, api_key="key", max_retries=0) as plain, ThreadPoolExecutor(at_once) as pool:
        client = guard_openai(plain, guard, POLICY, "gate")
        futures = [pool.submit(blocking, call, client) for call in calls]
        for index, (call, future) in enumerate(zip(calls, futures, strict=True)):
            outcomes[outcome(call, future)] += 1
            _note(memory, index, len(calls))
    return outcomes


async def by_coroutines(url: str, calls: list[Call], at_once: int, guard: Guard, memory: list[float]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    async with openai.AsyncOpenAI(base_url=url, api_key="key", max_retries=0) as plain:
        client, room = guard_openai(plain, guard, POLICY, "gate"), asyncio.Semaphore(at_once)
        tasks = [asyncio.create_task(awaiting(call, client, room)) for call in calls]
        for index, (call, task) in enumerate(zip(calls, tasks, strict=True)):
            await asyncio.wait([task])
            outcomes[outcome(call, task)] += 1
            _note(memory, index, len(calls))
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


@dataclass(frozen=True)
class Cost:
    """What one call took: by the clock, and of the processor (this process alone; the server has its own)."""

    seconds: float
    cpu_seconds: float


def whole(client: openai.OpenAI) -> Cost:
    began, cpu = time.perf_counter(), time.process_time()
    client.chat.completions.create(model="answers", messages=MESSAGES)
    return Cost(time.perf_counter() - began, time.process_time() - cpu)


def first_token(client: openai.OpenAI) -> Cost:
    began, cpu = time.perf_counter(), time.process_time()
    with client.chat.completions.create(model="answers", messages=MESSAGES, stream=True) as stream:
        next(chunk for chunk in stream if chunk.choices[0].delta.content)
        return Cost(time.perf_counter() - began, time.process_time() - cpu)


def side_by_side(plain: Any, guarded: Any, measure: Callable[[Any], Cost], repetitions: int) -> dict[str, float]:
    """Return the median milliseconds of a plain and of a guarded call that take turns, after one of each that is not counted."""
    pairs = [(measure(plain), measure(guarded)) for _ in range(repetitions + 1)][1:]
    figures = {}
    for side, costs in zip(("plain", "guarded"), zip(*pairs, strict=True), strict=True):
        figures[f"{side}_ms"] = statistics.median(cost.seconds for cost in costs) * 1e3
        figures[f"{side}_cpu_ms"] = statistics.median(cost.cpu_seconds for cost in costs) * 1e3
    for kind in ("ms", "cpu_ms"):
        figures[f"difference_{kind}"] = figures[f"guarded_{kind}"] - figures[f"plain_{kind}"]
    return figures


def overhead(repetitions: int) -> dict[str, Any]:
    """Return what the guard costs a clean call, and the gate the first token."""
    figures: dict[str, Any] = {}
    for name, wait, pause, measure in (
        ("instant", 0.0, 0.0, whole),
        ("model_300_ms", MODEL_SECONDS, 0.0, whole),
        ("first_token", MODEL_SECONDS, PAUSE_SECONDS, first_token),
    ):
        with server(wait, pause) as url, openai.OpenAI(base_url=url, api_key="key", max_retries=0) as client:
            figures[name] = side_by_side(client, guard_openai(client, stream="gate"), measure, repetitions)
    for kind in ("ms", "cpu_ms"):
        figures[f"share_of_300_{kind}"] = figures["instant"][f"difference_{kind}"] / (MODEL_SECONDS * 1e3)
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
        "overhead": overhead(chosen.repetitions),
    }
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
