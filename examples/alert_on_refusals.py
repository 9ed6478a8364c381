"""Tell somebody when refusals become many, and when it is over: here by printing, in your app by a webhook."""

from refusal_guard import Guard
from refusal_guard.alerts import Alert, Alerts, Rule
from refusal_guard.events import flush, tagged

ANSWER, REFUSAL = "It is in Nantwich.", "I'm sorry, I can't help with that."
DAY = [ANSWER] * 20 + [REFUSAL] * 20 + [ANSWER] * 60  # a new system prompt, and its fix


def tell(alert: Alert) -> None:
    """Stand in for refusal_guard.alerts.Webhook("https://hooks.slack.com/...", format="slack")."""
    print(f"{alert.title}\n  {alert.text}")


rule = Rule(name="refusals", kind="refusals", by=("model", "route"), rate=0.3, min_samples=20)
alerts = Alerts([rule], [tell])
guard = Guard(hooks=[alerts], route="support")

with tagged(model="aurora-large"):
    guard.scan_many([("Where is my parcel?", answer) for answer in DAY])
flush()  # only for the end of a script: hooks and notifiers run in threads of their own
alerts.flush()
