"""Fall back to other models, then to a fixed text, and never longer than ten seconds."""

from refusal_guard import Fallback, Guard, Replace, Retry, report_of


def ask(*, model: str = "careful") -> str:
    """Stand in for a provider with several models."""
    return "Roses are red, rents are too high." if model == "relaxed" else f"I'm sorry, {model} can't write that for you."


def ask_local() -> str:
    """Stand in for a model of your own, asked where the provider's all declined."""
    return "The rent is due, the tap drips too."


policy = Retry(1).then(Fallback("bold", "relaxed", ask_local)).then(Replace("Please ask a colleague.")).within(seconds=10)
response = Guard().run(ask, prompt="Write a limerick about my landlord.", policy=policy)
report = report_of(response)

print(response)
print(f"{report.outcome} after asking {', '.join(map(str, report.models))}")
