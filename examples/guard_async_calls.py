"""Guard many calls at once: arun awaits the call, and the detector works in a thread."""

import asyncio

from refusal_guard import Guard, Retry, report_of

PROMPTS = ["Name a prime.", "Describe my neighbour's diary.", "Name a colour.", "Book me a flight."]


async def ask(prompt: str) -> str:
    """Stand in for a call over the network."""
    await asyncio.sleep(0.01)
    return {"Name a prime.": "Seven.", "Name a colour.": "Green."}.get(prompt, "I'm sorry, I'm not able to do that.")


async def main() -> None:
    """Run all prompts under one guard."""
    guard = Guard()
    calls = (guard.arun(lambda prompt=prompt: ask(prompt), prompt=prompt, policy=Retry(1)) for prompt in PROMPTS)
    for prompt, response in zip(PROMPTS, await asyncio.gather(*calls), strict=True):
        report = report_of(response)
        print(f"{report.outcome:8} {len(report.attempts)} attempts, stopped: {report.stopped}: {prompt}")


asyncio.run(main())
