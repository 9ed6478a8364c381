"""The HTTP service under load on the loopback interface: requests per second, latency, errors and memory.

    python benchmarks/serve.py [--seconds S] [--connections 1,16,64] [--detector NAME] [--out FILE]

`refusal-guard serve` runs in a process of its own, and is asked for one verdict at a time over connections that stay open, each sending its
next request when it has its answer. The pairs are those of the sample transcripts, or of REFUSAL_GUARD_DATA's eval sets. Every answer is
compared with the verdict of a guard in this process: another status or another verdict is an error. The client takes a part of the same
processors. Needs the extra `serve` and Linux (memory is read from /proc).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latency import SAMPLES, data_files, pairs_of

from refusal_guard import Guard

RESULTS = Path(__file__).parent / "results" / "serve.json"
PAIRS = 500
WARM_UP_SECONDS = 2.0


@dataclass(frozen=True)
class Ask:
    """A request as it goes over the wire, and the answer it has to have."""

    request: bytes
    refused: bool


@dataclass
class Tally:
    """What one level of load came to."""

    milliseconds: list[float] = field(default_factory=list)
    errors: int = 0

    def figures(self, seconds: float) -> dict[str, Any]:
        """Return the sums of so many seconds."""
        ordered = sorted(self.milliseconds)
        at = {name: ordered[int(share * (len(ordered) - 1))] for name, share in (("p50", 0.5), ("p99", 0.99))}
        return {"requests": len(ordered), "requests_per_second": len(ordered) / seconds, "milliseconds": at, "errors": self.errors}


def asks(detector: str) -> list[Ask]:
    pairs = pairs_of(data_files("eval/*.gz") or [SAMPLES])
    pairs = pairs[:: max(1, len(pairs) // PAIRS)]
    return [Ask(_request(*pair), verdict.refused) for pair, verdict in zip(pairs, Guard(detector).scan_many(pairs), strict=True)]


def _request(prompt: str, response: str) -> bytes:
    body = json.dumps({"prompt": prompt, "response": response}).encode()
    return b"POST /v1/scan HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@contextmanager
def service(detector: str) -> Iterator[tuple[int, int]]:
    """Run the command until it is ready; yields its port and its process id."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "refusal_guard.cli", "serve", "--port", str(port), "--detector", detector]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        print("the service ended with", process.wait(60))


def megabytes(pid: int) -> float:
    """Return the resident memory of a process."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024  # type: ignore[index]


async def load(port: int, asked: Sequence[Ask], connections: int, seconds: float) -> Tally:
    """Ask over so many connections for so long."""
    tally = Tally()
    deadline = time.perf_counter() + seconds
    offsets = (len(asked) * i // connections for i in range(connections))
    await asyncio.gather(*(_ask_until(deadline, port, itertools.cycle([*asked[at:], *asked[:at]]), tally) for at in offsets))
    return tally


async def _ask_until(deadline: float, port: int, asked: Iterator[Ask], tally: Tally) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < deadline:
        ask = next(asked)
        began = time.perf_counter()
        writer.write(ask.request)
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))  # type: ignore[index]
        tally.milliseconds.append((time.perf_counter() - began) * 1_000)
        tally.errors += not head.startswith(b"HTTP/1.1 200 ") or json.loads(body)["refused"] != ask.refused
    writer.close()
    await writer.wait_closed()


def measure(detector: str, levels: Sequence[int], seconds: float) -> dict[str, Any]:
    asked = asks(detector)
    found: dict[str, Any] = {"detector": detector, "processors": os.cpu_count(), "pairs": len(asked), "levels": {}}
    with service(detector) as (port, pid):
        asyncio.run(load(port, asked, max(levels), WARM_UP_SECONDS))
        found["megabytes"] = [megabytes(pid)]
        for connections in levels:
            level = asyncio.run(load(port, asked, connections, seconds)).figures(seconds)
            found["levels"][str(connections)] = level
            found["megabytes"].append(megabytes(pid))
            print(f"{connections} connections", json.dumps(level), f"{found['megabytes'][-1]:.0f} MB", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each level runs")
    parser.add_argument("--connections", default="1,16,64", help="levels of load")
    parser.add_argument("--detector", default="embedded")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = measure(options.detector, [int(level) for level in options.connections.split(",")], options.seconds)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
