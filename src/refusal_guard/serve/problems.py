"""Errors as JSON, `{"error": "what to do"}`, without any text of a prompt or a response."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ..errors import InputError, RefusalGuardError
from .batching import Overloaded, TimedOut
from .bodies import FORMS

_log = logging.getLogger("refusal_guard.serve")
_RETRY_AFTER = {"Retry-After": "1"}
_MOST_FINDINGS = 5


class Problem(BaseModel):
    """Why a request has no answer."""

    error: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "The body is no JSON.",
        401: "The bearer token is missing or wrong.",
        408: "The body did not arrive in time.",
        413: "The body is too large.",
        415: "The body is of another kind than JSON.",
        422: "The body is not what the route takes.",
        500: "The service failed.",
        503: "The detector failed, or too much waits for it.",
        504: "The detector did not answer in time.",
    }.items()
}


def problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the response that tells a problem."""
    return JSONResponse({"error": message}, status, headers)


def tell_problems(app: FastAPI) -> None:
    """Let an app answer every error as a problem."""
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(RefusalGuardError, _of_ours)


def _of_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, error.headers)


def _of_validation(request: Request, error: Exception) -> JSONResponse:
    """Say where and what is wrong, and leave out what pydantic quotes of the input: values, and the names of unknown fields."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(finding["type"] == "json_invalid" for finding in found):
        return problem(400, "the body is no valid JSON")
    return problem(422, "; ".join(_finding(finding) for finding in found[:_MOST_FINDINGS]))


def _finding(finding: Mapping[str, Any]) -> str:
    unknown = finding["type"] == "extra_forbidden"
    place = ".".join(str(step) for step in finding["loc"][: -1 if unknown else None] if step not in FORMS)
    return f"{place}: {'a field is not known' if unknown else finding['msg']}"


def _of_ours(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, InputError):
        return problem(422, str(error))
    _log.warning("%s", error)
    if isinstance(error, TimedOut):
        return problem(504, str(error))
    return problem(503, str(error), _RETRY_AFTER if isinstance(error, Overloaded) else None)


def unexpected(error: Exception) -> JSONResponse:
    """Return the answer to an error of another kind, and log where it arose; its message, which might quote a text, goes nowhere."""
    _log.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
    return problem(500, f"the service failed: {type(error).__name__}")
