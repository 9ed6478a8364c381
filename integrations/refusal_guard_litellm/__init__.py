"""Guards a LiteLLM proxy: a guardrail that blocks or flags refusals, and a hook by which its router falls back from them."""

try:
    import litellm as _litellm  # noqa: F401
except ImportError as error:
    raise ImportError("refusal_guard_litellm needs the litellm package: pip install 'refusal-guard[litellm]'") from error

from .fallback import RefusalFallback, fallback_hook
from .guardrail import RefusalGuardrail

__all__ = ["RefusalFallback", "RefusalGuardrail", "fallback_hook"]
