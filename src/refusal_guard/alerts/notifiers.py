"""Notifiers: one-argument callables that tell somebody of an alert. One that raises has not told, and is asked again."""

from __future__ import annotations

import http.client
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import cache
from math import inf
from typing import IO, Any, Final, Literal, get_args
from urllib.parse import urlsplit

from ..errors import InputError, MissingExtraError, RefusalGuardError
from .alert import Alert

Notifier = Callable[[Alert], object]
Format = Literal["json", "slack"]
_LOGGER = logging.getLogger("refusal_guard.alerts")
_SLACK_ESCAPES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # docs.slack.dev/messaging/formatting-message-text


class NotifierError(RefusalGuardError):
    """A notifier could not tell of an alert; never holds an address, which may be a secret."""


def log_alert(alert: Alert) -> None:
    """Log an alert to the logger "refusal_guard.alerts": a warning, or an info when it is resolved.

    The record's `refusal_guard_alert` has the fields of the alert.
    """
    level = logging.WARNING if alert.state == "raised" else logging.INFO
    _LOGGER.log(level, "%s: %s", alert.title, alert.text, extra={"refusal_guard_alert": alert.model_dump()})


class Webhook:
    """Posts alerts to an address: all fields as JSON, or a text as Slack and those who speak like it take it.

    `headers` are added to each request (say, an Authorization). An answer that is no success, or none within `timeout` seconds, is a
    NotifierError. Redirects are not followed. Raises InputError for bad settings.
    """

    def __init__(self, url: str, *, format: Format = "json", headers: Mapping[str, str] | None = None, timeout: float = 10.0) -> None:
        if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise InputError("a webhook takes an address that begins with http:// or https://")
        if format not in get_args(Format):
            raise InputError(f"the format of a webhook must be one of {', '.join(get_args(Format))}")
        if not isinstance(timeout, int | float) or not 0.0 < timeout < inf:
            raise InputError("the timeout of a webhook must be a number of seconds above 0")
        self._url, self._format, self._timeout = url, format, timeout
        self._headers = {"Content-Type": "application/json", "User-Agent": "refusal-guard"} | dict(headers or {})

    def __call__(self, alert: Alert) -> None:
        """Post one alert."""
        body = slack_message(alert) if self._format == "slack" else json_message(alert)
        request = urllib.request.Request(self._url, json.dumps(body).encode(), self._headers, method="POST")
        try:
            with _opener().open(request, timeout=self._timeout):
                pass
        except urllib.error.HTTPError as error:
            raise NotifierError(f"the webhook answered {error.code}") from None
        except (OSError, http.client.HTTPException) as error:
            raise NotifierError(f"the webhook can't be reached ({type(error).__name__})") from None


class AppriseNotifier:
    """Tells one of the many services of Apprise (mail, PagerDuty, Teams, Telegram...); needs the extra `apprise`.

    `url` is an Apprise URL, see github.com/caronc/apprise/wiki. One service a notifier: of several, those that did take an alert
    would be told again when one did not. Raises InputError for a URL that Apprise does not know, MissingExtraError without Apprise.
    """

    def __init__(self, url: str) -> None:
        try:
            from apprise import Apprise
        except ImportError:
            raise MissingExtraError("AppriseNotifier", "apprise") from None
        self._service = Apprise()
        if not isinstance(url, str) or not self._service.add(url):
            raise InputError("Apprise does not know this kind of URL; github.com/caronc/apprise/wiki lists those it knows")

    def __call__(self, alert: Alert) -> None:
        """Tell of one alert."""
        kind = "warning" if alert.state == "raised" else "success"
        if not self._service.notify(alert.text, title=alert.title, notify_type=kind):
            raise NotifierError("Apprise could not hand the alert over")


def json_message(alert: Alert) -> dict[str, Any]:
    """Return all fields of an alert, with its title and text."""
    return alert.model_dump(mode="json") | {"title": alert.title, "text": alert.text}


def slack_message(alert: Alert) -> dict[str, str]:
    """Return an alert as incoming webhooks of Slack take it; no label can mention people or make a link."""
    mark = ":rotating_light:" if alert.state == "raised" else ":white_check_mark:"
    text = f"*{alert.title}*\n{alert.text}"
    return {"text": f"{mark} {''.join(_SLACK_ESCAPES.get(character, character) for character in text)}"}


@cache
def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirect)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        """Follow nothing: a redirected POST comes through as a GET, and nobody would be told."""
