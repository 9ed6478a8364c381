"""Events and time for the tests of alerts."""

from refusal_guard import ScanEvent
from refusal_guard.alerts import Alerts, Limits


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now=1_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


def event(refused=False, *, label=None, **fields):
    """An event of a plain scan; `signal="blocked"` and the like as a provider's word comes."""
    label = label or ("refusal" if refused else "compliance")
    usual = {"time": 0.0, "score": 0.9 if refused else 0.1, "threshold": 0.5, "detector": "fixed", "model": "small", "route": "chat"}
    return ScanEvent(label=label, refused=refused, **usual | fields)


class Room:
    """Alerts with a clock set by hand and a notifier that keeps what it is told."""

    def __init__(self, *rules, **limits):
        self.clock, self.notices = Clock(), []
        self.alerts = Alerts(rules, [self.notices.append], limits=Limits(**limits), clock=self.clock)

    def send(self, *events, every=1.0):
        """Send events, each some seconds after the one before."""
        for each in events:
            self.clock.now += every
            self.alerts(each)

    def told(self):
        """What was told so far, as (state, key)."""
        assert self.alerts.flush(10)
        return [(notice.state, notice.key) for notice in self.notices]
