import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal_guard.text import HEAD_CHARACTERS, TAIL_CHARACTERS, clip, plain, sentences


@pytest.mark.parametrize(
    "variant",
    [
        "I’m sorry, I can’t.",
        "I`m sorry, I can`t.",
        "I'M SORRY, I CAN'T.",
        "I'm\u200b sorry,\u00a0I  can\u00adn't.".replace("can\u00adn't", "can\u00ad't"),
        "\ufeffI'm sorry, I can't.\n",
        "Ｉ'ｍ sorry, I can＇t.",
        "I'm \u202esorry\u202c, I can't.",
        "I'm sorry,\x00 I can't.",
    ],
)
def test_variants_fold_into_one_form(variant):
    assert plain(variant) == "i'm sorry, i can't."


def test_accents_of_latin_letters_fold_and_other_scripts_keep_theirs():
    assert plain("Désolé, je ne PEUX pas") == "desole, je ne peux pas"
    assert plain("がぎ 죄송합니다 हिन्दी") == "がぎ 죄송합니다 हिन्दी"


def test_sentences_know_where_they_stand():
    text = "I'm sorry. \n\n  I can’t help!  第一。第二。\n- a list item"
    found = sentences(text)
    assert [text[s.start : s.end] for s in found] == ["I'm sorry.", "I can’t help!", "第一。", "第二。", "- a list item"]
    assert [s.plain for s in found] == ["i'm sorry.", "i can't help!", "第一。", "第二。", "- a list item"]


@given(st.text(max_size=400))
def test_sentences_are_ordered_spans_that_fold_to_their_plain_form(text):
    last = 0
    for sentence in sentences(text):
        assert last <= sentence.start < sentence.end <= len(text)
        assert sentence.plain == plain(text[sentence.start : sentence.end])
        last = sentence.end


@given(st.text(max_size=200))
def test_plain_form_is_plain_already(text):
    folded = plain(text)
    assert folded == folded.strip()
    assert "  " not in folded
    assert not any(unicodedata.category(char) == "Cs" for char in folded)


def test_clip_keeps_both_ends_and_says_what_it_cut():
    text = "a" * HEAD_CHARACTERS + "b" * 5_000 + "c" * TAIL_CHARACTERS
    kept, cut = clip(text)
    assert kept == "a" * HEAD_CHARACTERS + "\n" + "c" * TAIL_CHARACTERS
    assert text[HEAD_CHARACTERS + 1 + cut :] == kept[HEAD_CHARACTERS + 1 :]


def test_clip_leaves_short_text_alone():
    text = "x" * (HEAD_CHARACTERS + TAIL_CHARACTERS)
    assert clip(text) == (text, 0)
