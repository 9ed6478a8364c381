"""Guards Anthropic clients: `guard_anthropic(client)` is the same client, with every answer judged and the policy carried out."""

try:
    import anthropic as _anthropic  # noqa: F401
except ImportError as error:
    raise ImportError("refusal_guard_anthropic needs the anthropic package: pip install 'refusal-guard[anthropic]'") from error

from refusal_guard import report_of

from .client import guard_anthropic

__all__ = ["guard_anthropic", "report_of"]
