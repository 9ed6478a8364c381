"""The guardrail: what a proxy's models answer is judged, plain or streamed, by chat or by responses; refusals are blocked or flagged."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Mapping
from typing import Any, Literal, get_args

from litellm.exceptions import GuardrailRaisedException
from litellm.integrations.custom_guardrail import CustomGuardrail

from refusal_guard import Guard, InputError, Verdict

OnRefusal = Literal["block", "flag"]
Stream = Literal["gate", "full"]
_VERDICT = "refusal_guard_verdict"
HEADER = "x-refusal-guard"
# About a sentence: the usual five chunks, "I'm sorry, but", are the opening of refusals and of answers alike.
_CHUNKS_A_SCAN = 25


class RefusalGuardrail(CustomGuardrail):  # type: ignore[misc]
    """Judges what models answer; for `mode: post_call`.

    Every key under `litellm_params` comes as a keyword. `detector`, `threshold` and `on_error` are those of `Guard`. `on_refusal` says what
    happens: "block" ends the call with status 400, "flag" tells in the header `x-refusal-guard` and in LiteLLM's logs. Of a stream "gate"
    releases what was judged so far, every 25 chunks, and "full" everything at its end; a blocked stream ends in an error. An answer of
    several choices is refused when all are, and one that calls tools is none. Raises InputError for anything else.
    """

    def __init__(
        self,
        *,
        detector: str = "embedded",
        threshold: float | None = None,
        on_error: Literal["raise", "pass", "refuse"] = "raise",
        on_refusal: OnRefusal = "block",
        stream: Stream = "gate",
        **options: Any,
    ) -> None:
        if on_refusal not in get_args(OnRefusal):
            raise InputError(f"on_refusal must be one of {', '.join(get_args(OnRefusal))}")
        if stream not in get_args(Stream):
            raise InputError(f"stream must be one of {', '.join(get_args(Stream))}")
        self._guard = Guard(detector, threshold=threshold, on_error=on_error)
        self._blocks = on_refusal == "block"
        # By these LiteLLM withholds the chunks of a stream until they are judged.
        self.streaming_buffer_until_moderated = self._blocks
        self.streaming_buffer_release_on_scan = stream == "gate"
        self.streaming_sampling_rate = _CHUNKS_A_SCAN
        super().__init__(**options)

    async def apply_guardrail(self, inputs: Any, request_data: dict[str, Any], input_type: str, logging_obj: Any = None) -> Any:
        """Return the inputs, judged. Raises GuardrailRaisedException for a refusal that is to be blocked."""
        texts = inputs.get("texts") or []
        if input_type != "response" or inputs.get("tool_calls") or not texts:
            return inputs
        before = asked(request_data)
        verdicts = await to_thread(self._guard.scan_many, [[*before, {"role": "assistant", "content": text}] for text in texts])
        if all(verdict.refused for verdict in verdicts):
            self._refused(verdicts[0], request_data)
        return inputs

    async def async_post_call_response_headers_hook(self, data: dict[str, Any], *arguments: Any, **more: Any) -> dict[str, str] | None:
        """Return the header that tells of a flagged refusal."""
        verdict = data.get(_VERDICT)
        return {HEADER: f"{verdict['label']}; score={verdict['score']:.3f}"} if isinstance(verdict, Mapping) else None

    def _refused(self, verdict: Verdict, request_data: dict[str, Any]) -> None:
        told = {"label": verdict.label.value, "score": verdict.score, "detector": verdict.detector}
        if self._blocks:
            raise GuardrailRaisedException(
                guardrail_name=self.guardrail_name,
                message=f"The model refused ({told['label']}, score {verdict.score:.3f}).",
                should_wrap_with_default_message=False,
                blocked_content=True,
            )
        request_data[_VERDICT] = told
        self.add_standard_logging_guardrail_information_to_request_data(
            guardrail_json_response=told,
            request_data=request_data,
            guardrail_status="guardrail_flagged",
            guardrail_provider="refusal-guard",
        )


def asked(request_data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a request, whichever endpoint it is for; those that nobody says are left out."""
    said = next((given for name in ("messages", "input", "prompt") if (given := request_data.get(name))), None)
    if isinstance(said, str):
        return [{"role": "user", "content": said}]
    return [item for item in said if isinstance(item, dict) and "role" in item] if isinstance(said, list) else []
