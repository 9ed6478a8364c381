"""Tell a function of yours about every attempt of a guarded call: what it was judged to be, and what was done about it."""

from refusal_guard import Fallback, Guard, Retry, ScanEvent
from refusal_guard.events import tagged


def hook(event: ScanEvent) -> None:
    """Print an event; yours would count it, or write it to your table of calls."""
    print(f"{event.conversation_id} attempt {event.attempt} of {event.model}: {event.label} ({event.score:.2f}), {event.action}")


def ask(*, model: str = "small") -> str:
    """Stand in for a model; yours would be called here."""
    return "Water at 100 °C, eight minutes." if model == "large" else "I'm sorry, but I can't help with boiling eggs."


guard = Guard(hooks=[hook], route="kitchen")
with tagged(conversation_id="c-17"):
    answer = guard.run(ask, prompt="How do I boil eggs?", policy=Retry(1).then(Fallback("large")))
guard.events.flush()  # hooks run in a thread of their own; at exit they are waited for by themselves
print(answer)
