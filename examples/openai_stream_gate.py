"""Stream through a gate: the opening is held until it is judged, so a refusal is retried unseen. Needs openai and OPENAI_API_KEY."""

import os
import sys
from importlib.util import find_spec

if find_spec("openai") is None or "OPENAI_API_KEY" not in os.environ:
    sys.exit(print("This example needs the openai package, and OPENAI_API_KEY (OPENAI_BASE_URL for another server)."))

from openai import OpenAI

from refusal_guard import Fallback
from refusal_guard_openai import guard_openai, report_of

client = guard_openai(OpenAI(), policy=Fallback("gpt-5-mini"), stream="gate")
question = "What is the capital of France?"
with client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": question}], stream=True) as stream:
    for chunk in stream:
        print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", flush=True)
print(f"\nasked: {', '.join(map(str, report_of(stream).models))}")
