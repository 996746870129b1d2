"""Simulated texts are about the prompt, keep to their length and don't repeat themselves."""

import re

import pytest

from flik.providers.simulated import text

PROMPTS = (
    "Explain how a durable queue survives a crash",
    "a story about the northern sea",
    "haiku on autumn rain",
    "x",
    "!?",
)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("max_words", [1, 2, 7, 30, 160, 1000])
def test_a_text_keeps_to_its_length_and_is_never_empty(prompt: str, max_words: int) -> None:
    assert 1 <= text.words_in(text.write(prompt, None, max_words, 1)) <= max_words


def test_a_long_text_comes_close_to_the_length_asked_for() -> None:
    assert text.words_in(text.write("the history of tea and the sea", None, 800, 3)) > 700


@pytest.mark.parametrize("style", ["essay", "story"])
def test_no_sentence_of_a_long_text_comes_twice(style: str) -> None:
    written = text.write("Explain how a durable queue survives a crash", style, 4000, 5)
    sentences = [part for part in re.split(r"(?<=[.?!])\s+", written) if text.words_in(part) > 3]
    assert len(sentences) > 150
    assert len(set(sentences)) == len(sentences)


def test_every_slot_of_the_grammar_is_filled() -> None:
    for style in ("essay", "story", "poem"):
        assert not re.search(r"[{}]", text.write("cats, dogs and slow trains", style, 3000, 9))


def test_a_text_is_in_paragraphs_of_sentences_that_begin_with_a_capital() -> None:
    paragraphs = text.write("a garden in spring", None, 300, 2).split("\n\n")
    assert len(paragraphs) > 2
    for paragraph in paragraphs:
        assert paragraph[0].isupper()
        assert paragraph[-1] in ".?!"


def test_the_prompts_words_are_what_the_text_is_about() -> None:
    assert "durable queue" in text.write("Explain the durable queue", None, 120, 1).lower()


def test_the_style_decides_between_essay_story_and_poem() -> None:
    assert text.register_of("about rain", "poem") == "poem"
    assert text.register_of("Write a short story about rain", None) == "story"
    assert text.register_of("about rain", None) == "essay"


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("Explain how a durable queue survives a crash", ["durable queue", "crash"]),
        ("Write a poem about old trains, please", ["old trains"]),
        ("NASA and the moon", ["NASA", "moon"]),
        ("the of and", ["the blank page"]),
        ("", ["the blank page"]),
    ],
)
def test_the_nouns_of_a_prompt_are_found(prompt: str, phrases: list[str]) -> None:
    assert text.phrases_of(prompt) == phrases


def test_seed_and_prompt_and_style_each_change_the_text() -> None:
    first = text.write("the sea", None, 100, 1)
    assert first == text.write("the sea", None, 100, 1)
    assert (
        len(
            {
                first,
                text.write("the sea", None, 100, 2),
                text.write("the sky", None, 100, 1),
                text.write("the sea", "poem", 100, 1),
            }
        )
        == 4
    )


def test_the_pieces_of_a_text_joined_are_the_text() -> None:
    written = text.write("the sea and the sky", "poem", 500, 4)
    pieces = text.chunks(written)
    assert "".join(pieces) == written
    assert 10 < len(pieces) <= 40


def test_adjectives_have_the_article_that_they_take() -> None:
    texts = " ".join(text.write("a note about rain", None, 400, seed) for seed in range(40))
    assert re.search(r"\b[Aa]n (?:honest|even|open|exact)\b", texts)
    assert not re.search(r"\b[Aa] (?:honest|even|open|exact)\b", texts)
