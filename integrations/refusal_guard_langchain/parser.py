"""The output parser that raises on refusals, in front of any other parser; of streams it holds the opening back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any

from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import BaseOutputParser, BaseTransformOutputParser, StrOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import RunnableConfig
from pydantic import ConfigDict, Field, SkipValidation, model_validator

from refusal_guard import Guard, InputError, Raise, report_of
from refusal_guard.streaming import AsyncChunkStream, ChunkStream, Hold, Source, StreamedCall, StreamMode

from .bodies import ChunkTranscript, as_chunk, body_of
from .errors import langchain_errors


class RefusalOutputParser(BaseTransformOutputParser[Any]):
    """Parses what a model answers, and raises RefusalDetectedError where it refuses.

    `parser` does the parsing; without one the text comes out. A stream is held back as `streamed` says: "gate" its opening, `hold`
    characters or the first sentence, "full" the whole, "flag" nothing. A refusal that is held back is raised before anything comes out, so
    that `with_fallbacks` still acts; behind that, the whole is judged at the end. A parser does not know the prompt, so the answer is
    judged alone, but in `parse_with_prompt`; `guard_model` judges with the prompt.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    parser: Annotated[BaseOutputParser[Any], SkipValidation()] = Field(default_factory=StrOutputParser)
    guard: Guard = Field(default_factory=Guard)
    streamed: StreamMode = "gate"
    hold: int | None = None

    @model_validator(mode="after")
    def _check(self) -> RefusalOutputParser:
        if not isinstance(self.parser, BaseOutputParser):
            raise InputError(f"the parser must be an output parser of LangChain, not a {type(self.parser).__name__}")
        Hold(self.streamed, self.hold)
        return self

    @property
    def OutputType(self) -> Any:
        """What the parser inside makes."""
        return self.parser.OutputType

    @property
    def _type(self) -> str:
        return "refusal_guard"

    def invoke(self, input: str | BaseMessage, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Parse a message or a text. Raises InputError for anything else."""
        _generation(input)
        return super().invoke(input, config, **kwargs)

    async def ainvoke(self, input: str | BaseMessage, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Do what `invoke` does, awaiting."""
        _generation(input)
        return await super().ainvoke(input, config, **kwargs)

    def parse(self, text: str) -> Any:
        """Parse a text."""
        return self.parse_result([_generation(text)])

    def parse_with_prompt(self, completion: str, prompt: PromptValue) -> Any:
        """Parse a text, judged as the answer to a prompt."""
        self._answered([_generation(completion)], prompt.to_messages())
        return self.parser.parse_with_prompt(completion, prompt)

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse generations. All must be refused to raise; otherwise those that are not are parsed."""
        return self.parser.parse_result(self._answered(result), partial=partial)

    def get_format_instructions(self) -> str:
        """Return those of the parser inside."""
        return self.parser.get_format_instructions()

    def _answered(self, result: list[Generation], messages: Sequence[BaseMessage] | None = None) -> list[Generation]:
        """Return the generations that are not refused."""
        if not result:
            raise InputError("there is no generation to parse")
        with langchain_errors(lambda _: getattr(result[0], "message", None)):
            judged = self.guard.run(lambda: body_of(result), policy=Raise(), messages=messages)
        verdicts = report_of(judged).attempts[-1].verdicts
        return [generation for generation, verdict in zip(result, verdicts, strict=True) if not verdict.refused]

    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:
        transcript, stream = ChunkTranscript(), ChunkStream(input)
        with langchain_errors(lambda _: transcript.message()):
            self._held(transcript).run(lambda: Source(stream=stream, result=stream))
            try:
                if isinstance(self.parser, BaseTransformOutputParser):
                    yield from self.parser._transform(iter(stream))
                    return
                for _ in stream:
                    pass  # a parser that takes no chunks takes the whole
                yield from (self.parser.parse_result([whole]) for whole in transcript.generations())
            finally:
                stream.close()

    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:
        transcript, stream = ChunkTranscript(), AsyncChunkStream(input)

        async def opened() -> Source:
            return Source(stream=stream, result=stream)

        with langchain_errors(lambda _: transcript.message()):
            await self._held(transcript).arun(opened)
            try:
                if isinstance(self.parser, BaseTransformOutputParser):
                    async for parsed in self.parser._atransform(aiter(stream)):
                        yield parsed
                    return
                async for _ in stream:
                    pass
                for whole in transcript.generations():
                    yield await self.parser.aparse_result([whole])
            finally:
                await stream.close()

    def _held(self, transcript: ChunkTranscript) -> StreamedCall:
        return StreamedCall(self.guard, Raise(), Hold(self.streamed, self.hold), lambda: transcript)


def _generation(answer: Any) -> Generation:
    """Return a message or a text as a generation; raises InputError for anything else."""
    return Generation(text=answer) if isinstance(answer, str) else ChatGeneration(message=as_chunk(answer).message)
