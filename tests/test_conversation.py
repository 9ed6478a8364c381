import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal_guard import Conversation, InputError, Message
from refusal_guard.conversation import Fields


def test_pair_keeps_both_texts():
    conversation = Conversation.from_pair("How many moons has Mars?", "Two.")
    assert (conversation.prompt, conversation.response) == ("How many moons has Mars?", "Two.")


def test_none_counts_as_no_text():
    conversation = Conversation.from_pair(None, None)
    assert (conversation.prompt, conversation.response) == ("", "")


@pytest.mark.parametrize("bad", [b"bytes", 3, ["list"], {"a": 1}, 2.5, True])
def test_pair_of_wrong_types_names_the_type(bad):
    with pytest.raises(InputError, match=type(bad).__name__):
        Conversation.from_pair("prompt", bad)


def test_last_answer_and_the_request_before_it_are_judged():
    conversation = Conversation.from_messages(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "First question"},
            {"role": "assistant", "content": "First answer"},
            {"role": "user", "content": "Second"},
            {"role": "user", "content": "question"},
            {"role": "assistant", "content": "Second"},
            {"role": "assistant", "content": "answer"},
            {"role": "user", "content": "A third question, not answered yet"},
        ]
    )
    assert conversation.prompt == "Second\nquestion"
    assert conversation.response == "Second\nanswer"


def test_tool_results_are_nobodys_words():
    conversation = Conversation.from_messages(
        [
            {"role": "user", "content": "Weather in Oslo?"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "weather"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "I'm sorry, I can't do that."},
            {"role": "assistant", "content": "Eight degrees and rain."},
        ]
    )
    assert (conversation.prompt, conversation.response) == ("Weather in Oslo?", "Eight degrees and rain.")


def test_parts_are_joined_and_media_leave_a_mark():
    conversation = Conversation.from_messages(
        [
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "x"}}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "output_text", "text": "A cat."}]},
        ]
    )
    assert conversation.prompt == "What is this?\n[image]"
    assert conversation.response == "A cat."


@pytest.mark.parametrize(
    "answer",
    [
        {"role": "assistant", "content": None, "refusal": "I can't help with that."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I can't help with that."}]},
    ],
)
def test_declared_refusal_is_kept_apart_from_the_text(answer):
    conversation = Conversation.from_messages([{"role": "user", "content": "x"}, answer])
    assert conversation.answer[-1].refusal == "I can't help with that."
    assert conversation.response == ""


@pytest.mark.parametrize(
    "text",
    [
        "<think>I cannot do this.</think>Sure: 4.",
        "<THINKING>I cannot\ndo this.</THINKING>\n\nSure: 4.",
        "I cannot do this.</think>Sure: 4.",
        "<think>one</think><think>two</think>Sure: 4.",
        "<|channel|>analysis<|message|>I cannot do this.<|end|><|start|>assistant<|channel|>final<|message|>Sure: 4.",
    ],
)
def test_reasoning_is_blanked_and_positions_stay(text):
    visible = Conversation.from_pair("2 + 2?", text).visible_response
    assert visible.strip() == "Sure: 4."
    assert len(visible) == len(text)
    assert text[visible.index("Sure") :] == "Sure: 4."


def test_reasoning_that_never_ends_leaves_nothing():
    assert Conversation.from_pair("x", "<think>I cannot do this, because").visible_response.strip() == ""


@pytest.mark.parametrize(
    ("row", "prompt", "response"),
    [
        ({"prompt": "p", "response": "r"}, "p", "r"),
        ({"prompt": "p", "completion": "r"}, "p", "r"),
        ({"instruction": "p", "input": "more", "output": "r"}, "p\nmore", "r"),
        ({"instruction": "p", "input": "", "output": "r"}, "p", "r"),
        ({"question": "p", "answer": "r"}, "p", "r"),
        ({"input": "p", "output": "r"}, "p", "r"),
        ({"response": "r"}, "", "r"),
        ({"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]}, "p", "r"),
        ({"messages": [{"role": "user", "content": "p"}], "response": "r"}, "p", "r"),
        ({"prompt": [{"role": "user", "content": "p"}], "response": "r"}, "p", "r"),
        ({"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "r"}]}, "p", "r"),
    ],
)
def test_usual_columns_are_found(row, prompt, response):
    conversation = Conversation.from_row(row)
    assert (conversation.prompt, conversation.response) == (prompt, response)


def test_named_fields_win():
    row = {"prompt": "no", "response": "no", "q": "p", "a": "r", "chat": [{"role": "assistant", "content": "c"}]}
    assert Conversation.from_row(row, Fields(prompt="q", response="a")).response == "r"
    assert Conversation.from_row(row, Fields(messages="chat")).response == "c"
    assert Conversation.from_row(row, Fields(response="a")).response == "r"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "--prompt-field"),
        ({"text": "x"}, "--prompt-field"),
        ({"prompt": "p"}, "--prompt-field"),
        ({"prompt": "p", "response": 3}, "'prompt' and 'response'.*int"),
        ({"messages": []}, "nothing to judge"),
        ({"messages": "text"}, "list of objects"),
        ({"messages": [{"content": "x"}]}, "message 0 has no role"),
        ({"messages": ["x"]}, "message 0 must be an object"),
        ({"messages": [{"role": "assistant", "content": 3}]}, "content of message 0"),
        ({"messages": [{"role": "assistant", "content": [3]}]}, "content part"),
        ({"messages": [{"role": "assistant", "content": [{"type": "text"}]}]}, "text part"),
        ({"messages": [{"role": "user", "content": "x"}]}, "nothing to judge"),
        ("not a row", "object with named fields"),
    ],
)
def test_rows_that_are_none_say_why(row, message):
    with pytest.raises(InputError, match=message):
        Conversation.from_row(row)


def test_missing_named_fields_are_named():
    with pytest.raises(InputError, match="'q'"):
        Conversation.from_row({"prompt": "p", "response": "r"}, Fields(prompt="q", response="response"))
    with pytest.raises(InputError, match="'chat'"):
        Conversation.from_row({"prompt": "p", "response": "r"}, Fields(messages="chat"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "from"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["prompt", "response", "messages", "conversations", "instruction", "output"]), json_values))
def test_any_row_is_a_conversation_or_an_input_error(row):
    try:
        conversation = Conversation.from_row(row)
    except InputError:
        return
    assert len(conversation.visible_response) == len(conversation.response)


@given(st.text(alphabet="<think>/ \nabc|channelsty", max_size=80))
def test_blanking_never_moves_a_position(text):
    conversation = Conversation.from_pair("", text)
    kept = conversation.visible_response
    assert len(kept) == len(text)
    assert all(a in (b, " ") for a, b in zip(kept, text, strict=True))


def test_conversations_are_frozen_and_have_a_schema():
    conversation = Conversation.from_pair("p", "r")
    with pytest.raises(ValueError, match="frozen"):
        conversation.messages = ()
    assert "messages" in Conversation.model_json_schema()["properties"]
    assert Conversation.model_validate_json(conversation.model_dump_json()) == conversation
    assert conversation.messages[0] == Message(role="user", content="p")
