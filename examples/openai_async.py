"""Guard an awaiting OpenAI client, and many calls at once. Needs the openai package and OPENAI_API_KEY."""

import asyncio
import os
import sys
from importlib.util import find_spec

if find_spec("openai") is None or "OPENAI_API_KEY" not in os.environ:
    sys.exit(print("This example needs the openai package, and OPENAI_API_KEY (OPENAI_BASE_URL for another server)."))

from openai import AsyncOpenAI

from refusal_guard import Raise, RefusalDetected, Retry
from refusal_guard_openai import guard_openai, report_of


async def main() -> None:
    """Ask three questions."""
    async with AsyncOpenAI() as plain:
        client = guard_openai(plain, policy=Retry(1).then(Raise()))
        questions = ["What is the capital of France?", "And of Spain?", "And of Italy?"]
        calls = (client.responses.create(model="gpt-5", input=question) for question in questions)
        for question, answer in zip(questions, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(answer, RefusalDetected):
                print(f"{question} refused, {len(report_of(answer).attempts)} times")
            elif isinstance(answer, BaseException):
                raise answer
            else:
                print(question, answer.output_text)


asyncio.run(main())
