"""Guards LangChain: callbacks that flag, a parser and a model that raise, retry and gate streams, and a middleware for agents."""

try:
    import langchain.agents as _agents  # noqa: F401
except ImportError as error:
    raise ImportError("refusal_guard_langchain needs the langchain package: pip install 'refusal-guard[langchain]'") from error

from refusal_guard import report_of

from .callbacks import AsyncRefusalCallbackHandler, RefusalCallbackHandler
from .errors import RefusalDetectedError
from .middleware import RefusalGuardMiddleware, RefusalGuardState
from .model import guard_model
from .parser import RefusalOutputParser

__all__ = [
    "AsyncRefusalCallbackHandler",
    "RefusalCallbackHandler",
    "RefusalDetectedError",
    "RefusalGuardMiddleware",
    "RefusalGuardState",
    "RefusalOutputParser",
    "guard_model",
    "report_of",
]
