"""Flag one response, and say what the verdict rests on."""

from refusal_guard import Guard

guard = Guard()
prompt = "Summarise the attached contract in three sentences."
response = "I don't see an attachment, and I can't open files, so I'm not able to summarise it."

verdict = guard.scan(prompt, response)
if verdict.refused:
    start, end = verdict.evidence or (0, 0)
    print(f"{verdict.label} ({verdict.reason}), score {verdict.score:.2f}: {response[start:end]!r}")
else:
    print("answered")
