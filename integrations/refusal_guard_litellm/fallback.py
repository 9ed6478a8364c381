"""The hook by which LiteLLM's router falls back from refusals that are written as ordinary text."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from litellm.integrations.custom_logger import CustomLogger
from litellm.types.utils import ModelResponse

from refusal_guard import Guard, report_of

from .guardrail import asked

# The router takes this finish reason for a breach of content policy, and goes on with `content_policy_fallbacks`.
_DECLARED = "content_filter"


class RefusalFallback(CustomLogger):  # type: ignore[misc]
    """Marks refused chat completions for the router's `content_policy_fallbacks`; a refusal without a fallback comes back so marked.

    `guard` is the embedded model's without one. Of an answer with several choices all must be refused.
    """

    def __init__(self, guard: Guard | None = None) -> None:
        super().__init__()
        self._given = guard

    @cached_property
    def _guard(self) -> Guard:
        return self._given or Guard()

    async def async_post_call_success_deployment_hook(self, request_data: dict[str, Any], response: Any, call_type: Any) -> Any:
        """Return the response of one deployment, marked when it is refused."""
        if not isinstance(response, ModelResponse):
            return None

        async def answered() -> ModelResponse:
            return response

        judged = await self._guard.arun(answered, messages=asked(request_data) or None)
        if report_of(judged).attempts[-1].verdict.refused:
            for choice in response.choices:
                choice.finish_reason = _DECLARED
        return response


fallback_hook = RefusalFallback()
