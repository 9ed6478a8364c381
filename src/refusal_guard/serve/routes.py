"""The routes: each reads a body, has it judged, and answers in the shape of its API."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from ..conversation import Conversation
from ..errors import InputError
from ..events import tagged
from ..scanner import NoRefusal, judged_risk
from ..verdict import Verdict
from .batching import Batcher, Overloaded
from .bodies import AnalyzeOutput, GuardrailAnswer, GuardrailRequest, OneOrMany, ScannerRequest, ScanOutput, Status, encodable
from .limits import Limits
from .problems import PROBLEMS
from .prompts import RecentPrompts


class Service:
    """What the routes share."""

    def __init__(self, batcher: Batcher, limits: Limits) -> None:
        self.batcher = batcher
        self.limits = limits
        self.prompts = RecentPrompts()


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Shared = Annotated[Service, Depends(_service)]
judging = APIRouter()
health = APIRouter()


@judging.post("/v1/scan", summary="Judge one response, or a list of them")
async def scan(body: OneOrMany, service: Shared) -> Verdict | list[Verdict]:
    """Return the verdict on a pair or on chat messages; for a list of them a list, in order."""
    items = body if isinstance(body, list) else [body]
    if len(items) > service.limits.max_items:
        raise InputError(f"a request may hold {service.limits.max_items} responses")
    verdicts = await service.batcher.judge([item.conversation() for item in items])
    return verdicts if isinstance(body, list) else verdicts[0]


@judging.post("/scan/output", summary="LLM Guard's API: validity and risk")
async def scan_output(body: ScannerRequest, service: Shared) -> ScanOutput:
    """Return what LLM Guard's service returns with NoRefusal as its only scanner."""
    if NoRefusal.__name__ in body.scanners_suppress:
        return ScanOutput(is_valid=True, scanners={})
    [verdict] = await service.batcher.judge([Conversation.from_pair(body.prompt, body.output)])
    is_valid, risk = judged_risk(verdict, service.batcher.threshold)
    return ScanOutput(is_valid=is_valid, scanners={NoRefusal.__name__: risk})


@judging.post("/analyze/output", summary="LLM Guard's API: validity, risk and the output")
async def analyze_output(body: ScannerRequest, service: Shared) -> AnalyzeOutput:
    """Return what /scan/output does, and the output, which is never changed."""
    found = await scan_output(body, service)
    return AnalyzeOutput(is_valid=found.is_valid, scanners=found.scanners, sanitized_output=encodable(body.output))


@judging.post("/beta/litellm_basic_guardrail_api", summary="LiteLLM's generic guardrail API", response_model_exclude_none=True)
async def litellm_guardrail(body: GuardrailRequest, service: Shared) -> GuardrailAnswer:
    """Block a response when every choice in it is refused; one that calls a tool is none. Requests pass, and their prompt is kept."""
    if body.input_type == "request":
        _remember(body, service.prompts)
        return GuardrailAnswer()
    texts = body.texts or []
    if body.tool_calls or not texts:
        return GuardrailAnswer()
    prompt = service.prompts.of(body.litellm_call_id)
    with tagged(model=body.model, conversation_id=body.litellm_trace_id):
        verdicts = await service.batcher.judge([Conversation.from_pair(prompt, text) for text in texts])
    if not all(verdict.refused for verdict in verdicts):
        return GuardrailAnswer()
    best = min(verdicts, key=lambda verdict: verdict.score)
    return GuardrailAnswer(action="BLOCKED", blocked_reason=f"refusal-guard: the response is a {best.label} (score {best.score:.3f})")


def _remember(body: GuardrailRequest, prompts: RecentPrompts) -> None:
    """Keep the prompt of a call; messages that can't be read are no reason to stop it, and its response is then judged alone."""
    if body.litellm_call_id and body.structured_messages:
        answer = {"role": "assistant", "content": ""}
        with suppress(InputError):
            prompts.remember(body.litellm_call_id, Conversation.from_messages([*body.structured_messages, answer]).prompt)


@health.get("/healthz", summary="Whether the process answers")
async def healthz() -> Status:
    """Answer."""
    return Status()


@health.get("/readyz", summary="Whether a response would be judged now", responses={503: PROBLEMS[503]})
async def readyz(service: Shared) -> Status:
    """Answer, or 503 when every thread hangs or too much waits."""
    if not service.batcher.ready:
        raise Overloaded("not ready: the detector hangs, or too much waits for it", detector=service.batcher.detector)
    return Status()
