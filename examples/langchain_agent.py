"""Guard a LangChain agent: a refusal is asked again, unseen, and the state tells. Needs the langchain package; a fake model stands in."""

import sys
from importlib.util import find_spec

if find_spec("langchain") is None:
    sys.exit(print("This example needs the langchain package: pip install 'refusal-guard[langchain]'"))

from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel

from refusal_guard_langchain import RefusalGuardMiddleware

model = FakeListChatModel(responses=["I'm sorry, but I can't help with that.", "Paris is the capital of France."])
agent = create_agent(model, middleware=[RefusalGuardMiddleware(on_refusal="retry", max_retries=2)])
state = agent.invoke({"messages": [("user", "What is the capital of France?")]})

print(state["messages"][-1].text)
for record in state["refusal_guard"]:
    print(f"{record['outcome']} after {len(record['attempts'])} attempts")
