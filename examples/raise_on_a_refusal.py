"""Raise on a refusal, so that it can't slip into a database or an agent's next step."""

from refusal_guard import Fallback, Guard, Raise, RefusalDetected, report_of


def ask(*, model: str = "small") -> str:
    """Stand in for a model; whichever is asked, it declines."""
    return f"I'm sorry, but as {model} I'm not able to write that."


try:
    Guard().run(ask, prompt="Write a limerick about my landlord.", policy=Fallback("large").then(Raise()))
except RefusalDetected as error:
    print(error)
    print(f"asked {', '.join(map(str, report_of(error).models))}; the last said: {error.response}")
