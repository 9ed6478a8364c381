"""Guard an Anthropic client: a refusal falls back, and a streamed one is never seen. Needs anthropic and ANTHROPIC_API_KEY."""

import os
import sys
from importlib.util import find_spec

if find_spec("anthropic") is None or "ANTHROPIC_API_KEY" not in os.environ:
    sys.exit(print("This example needs the anthropic package, and ANTHROPIC_API_KEY (ANTHROPIC_BASE_URL for another server)."))

from anthropic import Anthropic
from anthropic.types import MessageParam

from refusal_guard import Fallback
from refusal_guard_anthropic import guard_anthropic, report_of

client = guard_anthropic(Anthropic(), policy=Fallback("claude-opus-5"), stream="gate")
question: list[MessageParam] = [{"role": "user", "content": "What is the capital of France?"}]

message = client.messages.create(model="claude-haiku-4-5", max_tokens=500, messages=question)
print(message.content[0].text)
print("asked:", ", ".join(map(str, report_of(message).models)))

with client.messages.stream(model="claude-haiku-4-5", max_tokens=500, messages=question) as stream:
    print("".join(stream.text_stream))
