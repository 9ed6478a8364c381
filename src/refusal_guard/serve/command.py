"""`refusal-guard serve`: its options, and the server that it runs until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ..errors import InputError
from ..events import Hook
from ..guard import Guard
from .limits import Limits

if TYPE_CHECKING:
    from argparse import _SubParsersAction

GuardOf = Callable[[Namespace, Sequence[Hook]], Guard]
TOKEN_VARIABLE = "REFUSAL_GUARD_SERVE_TOKEN"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BACKLOG = 2_048
_LAST_PORT = 65_535
_HELP = {
    "max_body": "largest body in bytes",
    "max_items": "most responses in one request",
    "max_waiting": "most responses that wait for the detector; more are answered with 503",
    "max_connections": "most open connections; requests of more are answered with 503",
    "body_timeout": "seconds within which a body must arrive",
    "timeout": "seconds within which the detector must answer",
    "threads": "threads that detect at the same time",
    "batch_size": "most responses in a batch of several requests (the embedded model reads one by one)",
}


def add_to(commands: _SubParsersAction[ArgumentParser], common: ArgumentParser, guard_of: GuardOf) -> None:
    """Add the `serve` command to the command line; `guard_of` makes the guard of the common options."""
    parser = commands.add_parser(
        "serve",
        parents=[common],
        help="judge over HTTP",
        description=f"Judge over HTTP until SIGTERM or SIGINT; what was taken is answered first. A bearer token in {TOKEN_VARIABLE}, or in "
        "a file, is asked for when there is one. Exit code: 0, or 2 for a usage or input error.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="port to listen on; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help=f"file that holds the bearer token, in place of {TOKEN_VARIABLE}")
    for limit in fields(Limits):
        option = f"--{limit.name.replace('_', '-')}"
        help = f"{_HELP[limit.name]} (default: %(default)s)"
        parser.add_argument(option, type=type(limit.default), default=limit.default, metavar="N", help=help)
    parser.set_defaults(run=lambda options: serve(options, guard_of))


def serve(options: Namespace, guard_of: GuardOf) -> int:
    """Run the service. It listens once the detector has answered for the first time."""
    limits = Limits(**{limit.name: getattr(options, limit.name) for limit in fields(Limits)})
    token = _token(options.token_file)
    from .app import create_app, server_of
    from .metrics import registry_and_hook

    registry, hook = registry_and_hook()
    service = server_of(create_app(guard_of(options, [hook]), token=token, limits=limits, registry=registry), limits)
    with _listening(options.host, options.port) as listening:
        open_to_all = not token and options.host not in _LOOPBACK
        _tell(listening, f"whoever reaches it may ask: set {TOKEN_VARIABLE}" if open_to_all else "")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, service.handle_exit)  # which the server raises again when it has stopped: the process ends well
        service.run([listening])
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise ArgumentTypeError(f"a port is a number from 0 to {_LAST_PORT}")
    return int(text)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        # asyncio turns Nagle's algorithm off only where a socket names TCP; with it on, an answer in two parts waits for 40 ms.
        return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=made.detach())
    except OSError as error:
        raise InputError(f"can't listen on {host} port {port}: {error.strerror or error}") from None


def _tell(listening: socket.socket, warning: str) -> None:
    """Say where the service listens, which port 0 leaves open, and a warning."""
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    said = f"refusal-guard: listening on {address}" + (f"; {warning}" if warning else "")
    Console(stderr=True, highlight=False, soft_wrap=True).print(said, markup=False)


def _token(file: Path | None) -> str | None:
    """Return the token of the file or of the environment; None where there is neither. An empty one is no open door: the app refuses it."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE)
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(f"the token file can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError("the token file is no text") from None
