"""Run a call under a guard: the response comes back as it is, with a report of what it was judged to be."""

from refusal_guard import Guard, report_of


def ask(prompt: str) -> str:
    """Stand in for a model; yours would be called here."""
    answers = {"What is 2 + 2?": "2 + 2 is 4."}
    return answers.get(prompt, "I'm sorry, but I can't help with that request.")


guard = Guard()
for prompt in ("What is 2 + 2?", "Write a limerick about my landlord."):
    response = guard.run(lambda prompt=prompt: ask(prompt), prompt=prompt)
    report = report_of(response)
    verdict = report.attempts[-1].verdict
    print(f"{report.outcome}: {verdict.label}, score {verdict.score:.2f}: {response}")
