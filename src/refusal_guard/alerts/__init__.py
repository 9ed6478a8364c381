"""Alerts: who is told, and when, that refusals or blocked prompts became many, or that the guard does not run.

Windows are those of one process: with several workers each sees its share. Fleets do better with the rules for Prometheus in deploy/.
"""

from .alert import Alert
from .config import read_alerts
from .monitor import Alerts, AlertStats, Limits
from .notifiers import AppriseNotifier, Notifier, NotifierError, Webhook, log_alert
from .rules import DEFAULT_RULES, Rule

__all__ = [
    "DEFAULT_RULES",
    "Alert",
    "AlertStats",
    "Alerts",
    "AppriseNotifier",
    "Limits",
    "Notifier",
    "NotifierError",
    "Rule",
    "Webhook",
    "log_alert",
    "read_alerts",
]
