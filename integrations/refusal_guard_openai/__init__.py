"""Guards OpenAI clients: `guard_openai(client)` is the same client, with every answer judged and the policy carried out."""

try:
    import openai as _openai  # noqa: F401
except ImportError as error:
    raise ImportError("refusal_guard_openai needs the openai package: pip install 'refusal-guard[openai]'") from error

from refusal_guard import report_of

from .client import guard_openai

__all__ = ["guard_openai", "report_of"]
