"""Ask again with a nudge: the model sees its refusal and what is said to it."""

from typing import Any

from refusal_guard import Guard, Reason, Retry, When, report_of

MESSAGES = [{"role": "user", "content": "How do I kill a child process in Python?"}]


def ask(*, messages: list[dict[str, Any]] = MESSAGES, temperature: float = 0.7) -> dict[str, Any]:
    """Stand in for a chat API: it takes messages and a temperature, and answers with a body of OpenAI's shape."""
    understood = "operating system" in messages[-1]["content"]
    text = "Call process.kill() on the subprocess.Popen object." if understood else "I can't help with harming children."
    return {"model": "demo", "choices": [{"message": {"role": "assistant", "content": text}}], "usage": {"total_tokens": 20}}


nudge = "This is about processes of an operating system. Please answer the question."
policy = Retry(2, nudge=nudge, temperature=0.0, when=When(reason=Reason.SHOULD_NOT))
response = Guard().run(ask, messages=MESSAGES, policy=policy)
report = report_of(response)

print(response["choices"][0]["message"]["content"])
print([attempt.verdict.label.value for attempt in report.attempts], f"{report.usage.total_tokens if report.usage else 0} tokens in all")
