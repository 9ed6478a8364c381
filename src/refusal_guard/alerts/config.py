"""Alerts from a file: TOML, or YAML with the extra `yaml`."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import InputError, MissingExtraError, problems
from .monitor import Alerts, Limits
from .notifiers import AppriseNotifier, Format, Notifier, Webhook, log_alert
from .rules import DEFAULT_RULES, Rule

T = TypeVar("T")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LogSettings(_Settings):
    """`log_alert`."""

    type: Literal["log"]

    def notifier(self) -> Notifier:
        """Return the notifier."""
        return log_alert


class _Addressed(_Settings):
    """A notifier with an address, as it is or by the name of an environment variable that holds it: it may be a secret."""

    url: str | None = Field(default=None, repr=False)
    url_env: str | None = None

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("set url or url_env, one of them")
        return self

    @property
    def address(self) -> str:
        """The address; InputError where the environment has none."""
        if self.url is not None:
            return self.url
        try:
            return os.environ[str(self.url_env)]
        except KeyError:
            raise InputError(f"the environment variable {self.url_env} is not set") from None


class WebhookSettings(_Addressed):
    """A `Webhook`."""

    type: Literal["webhook"]
    format: Format = "json"
    headers: Mapping[str, str] = Field(default={}, repr=False)
    timeout: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 10.0

    def notifier(self) -> Notifier:
        """Return the notifier."""
        return Webhook(self.address, format=self.format, headers=self.headers, timeout=self.timeout)


class AppriseSettings(_Addressed):
    """An `AppriseNotifier`."""

    type: Literal["apprise"]

    def notifier(self) -> Notifier:
        """Return the notifier."""
        return AppriseNotifier(self.address)


AnyNotifier = Annotated[LogSettings | WebhookSettings | AppriseSettings, Field(discriminator="type")]


class AlertSettings(Limits):
    """What a file says: the rules, the notifiers as tables of a `type` and its settings, and the limits."""

    rules: Annotated[tuple[Rule, ...], Field(min_length=1)] = DEFAULT_RULES
    notifiers: tuple[AnyNotifier, ...] = (LogSettings(type="log"),)


def read_alerts(path: str | Path, **further: Any) -> Alerts:
    """Return the Alerts that a file describes: .toml, or .yaml or .yml with the extra `yaml`.

    `further` are arguments of `Alerts` that no file can hold, such as `clock`. Raises InputError, which names the key, for what a file
    may not say, MissingExtraError where YAML or Apprise is not installed.
    """
    try:
        settings = AlertSettings.model_validate(_fields(Path(path)))
    except ValidationError as error:
        raise InputError(f"{path}: {problems(error)}") from None
    notifiers = [_made(f"{path}: notifiers.{index}", each.notifier) for index, each in enumerate(settings.notifiers)]
    return _made(str(path), lambda: Alerts(settings.rules, notifiers, limits=settings, **further))


def _fields(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix in (".yaml", ".yml"):
            return _yaml(path, text)
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    raise InputError(f"{path} must be a .toml, .yaml or .yml file")


def _yaml(path: Path, text: str) -> object:
    try:
        import yaml
    except ImportError:
        raise MissingExtraError("alerts from YAML", "yaml") from None
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # the error's own text quotes the file, which may hold a secret
        where = "" if mark is None else f" at line {mark.line + 1}"
        raise InputError(f"{path} is not YAML{where}") from None


def _made(where: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
