"""Texts that read like texts: an essay, a story or a poem about the prompt's own words.

The prompt's content words become the nouns; a seeded grammar deals phrases from shuffled
decks, so that nothing comes back before its deck is through, and no sentence twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import count

from flik.providers.simulated import chance
from flik.providers.simulated.grammar import (
    DETERMINER_WORDS,
    ESSAY,
    POEM,
    POEM_WORDS,
    SKIPPED_WORDS,
    STORY,
    STORY_WORDS,
    WORDS,
)

SKIPPED = frozenset(SKIPPED_WORDS.split())
REGISTERS: Mapping[str, tuple[Mapping[str, tuple[str, ...]], frozenset[str]]] = {
    "poem": (POEM, frozenset(POEM_WORDS.split())),
    "story": (STORY, frozenset(STORY_WORDS.split())),
}
DETERMINERS = frozenset(DETERMINER_WORDS.split())
PLURALS = {"poem": "the memory of {}", "story": "the {}", "essay": "the question of {}"}
ELSEWHERE = ("the work itself", "what comes next", "the rest of it", "the everyday")  # nouns for a prompt with few
_AN = (word for word in WORDS["quality"] if word[0] in "aeiou" or word == "honest")
TAKES_AN = re.compile(rf"\b([Aa]) (?=(?:{'|'.join(_AN)})\b)")  # the grammar writes "a" before any adjective
MANY_SENTENCES = 30  # deals that are tried before a text is ended early for want of new sentences


def words_in(text: str) -> int:
    """Count words the way a reader does: what stands between spaces."""
    return len(text.split())


def phrases_of(prompt: str) -> list[str]:
    """Return the prompt's noun-like phrases in order, each of one to three words; never an empty list."""
    found: list[str] = []
    for clause in re.split(r"[^\w\s'-]+", prompt[:4000]):
        run: list[str] = []
        for word in [*re.findall(r"[^\W_][\w'-]*", clause), "and"]:
            if word.lower() not in SKIPPED:
                run.append(word[:32] if word[1:] != word[1:].lower() else word[:32].lower())
                continue
            found += _cut_up(_without_verb(run) if word.lower() in DETERMINERS else run)
            run = []
    return list(dict.fromkeys(found)) or ["the blank page"]


def _without_verb(run: list[str]) -> list[str]:
    """Drop the last word of a run that stands before an article, if it is likely a verb: "queue survives (the)"."""
    return run[:-1] if run and (len(run) == 1 or run[-1].endswith(("s", "ed", "ing"))) else run


def _cut_up(run: list[str]) -> list[str]:
    return [" ".join(run[at : at + 3]) for at in range(0, len(run), 3)]


def _named(phrase: str, plural_as: str) -> str:
    """Return the phrase as a singular noun; `plural_as` says how a plural is wrapped, for instance "the idea of {}"."""
    if phrase.startswith("the ") or phrase != phrase.lower() or not phrase.isascii():
        return phrase
    if phrase.endswith("s") and not phrase.endswith(("ss", "us", "is")):
        return plural_as.format(phrase)
    return phrase if phrase.endswith("ing") else f"the {phrase}"


class Writer:
    """Writes one text. `rng` alone decides what it says about the phrases."""

    def __init__(self, rng: chance.Rng, prompt: str, plural_as: str) -> None:
        self._rng = rng
        self._nouns = [_named(phrase, plural_as) for phrase in phrases_of(prompt)]
        self._decks: dict[str, list[str]] = {}
        self._used: set[str] = set()
        self._fixed = {"topic": self._nouns[0], "hero": str(rng.choice(WORDS["person"]))}

    @property
    def topic(self) -> str:
        """What the text is about, as the beginning of a sentence."""
        return self._nouns[0][:1].upper() + self._nouns[0][1:]

    def deal(self, name: str, cards: tuple[str, ...]) -> str:
        """Return the next card of a deck, shuffled anew whenever it is empty."""
        deck = self._decks.setdefault(name, [])
        if not deck:
            deck.extend(cards[at] for at in self._rng.permutation(len(cards)))
        return deck.pop()

    def _fill(self, slot: re.Match[str]) -> str:
        name, form = slot["name"], slot["form"]
        if name in self._fixed:
            word = self._fixed[name]
        elif name in ("thing", "other"):
            extra = ELSEWHERE if len(self._nouns) < len(ELSEWHERE) else ()
            word = self.deal("noun", (*self._nouns, *extra))
            while word in self._used:
                word = self.deal("noun", (*self._nouns, *extra))
        else:
            word = self.deal(name, WORDS[name])
            while word == self._fixed["hero"]:
                word = self.deal(name, WORDS[name])
        self._used.add(word)
        return word[:1].lower() + word[1:] if form == "l" else word[:1].upper() + word[1:] if form == "c" else word

    def sentence(self, name: str, templates: tuple[str, ...]) -> str:
        """Return one sentence from the deck of templates `name`, its slots filled."""
        template = self.deal(f"row {name}", templates)
        self._used = {self._nouns[0]} if "{topic" in template else set()  # no noun twice in one sentence
        filled = re.sub(r"\{(?P<name>\w+)(?:!(?P<form>[lc]))?\}", self._fill, template)
        filled = TAKES_AN.sub(r"\1n ", filled)
        return filled if name == "line" else filled[:1].upper() + filled[1:]

    def paragraph_length(self) -> int:
        """Return how many sentences (or lines) the next paragraph holds: 3 to 6."""
        return int(self._rng.integers(3, 7))


def register_of(prompt: str, style: str | None) -> str:
    """Return what kind of text is asked for: poem, story or essay."""
    words = set(re.findall(r"\w+", f"{style or ''} {prompt[:4000]}".lower()))
    return next((name for name, (_, signs) in REGISTERS.items() if words & signs), "essay")


def _sentences(writer: Writer, rows: Mapping[str, tuple[str, ...]], lines: bool) -> Iterator[str]:
    """Yield the opening, then bodies that were not said before, for as long as there are new ones."""
    yield writer.sentence("open", rows["open"])
    said: set[str] = set()
    for tries in count():
        sentence = writer.sentence("line" if lines else "body", rows["body"])
        if sentence not in said:
            said.add(sentence)
            yield sentence
        elif tries > len(said) * 2 + MANY_SENTENCES:
            return


def write(prompt: str, style: str | None, max_words: int, seed: int) -> str:
    """Return a text of at most `max_words` words; the same arguments give the same text."""
    register = register_of(prompt, style)
    rows = REGISTERS[register][0] if register in REGISTERS else ESSAY
    writer = Writer(chance.stream(seed, prompt, style, "text"), prompt, PLURALS[register])
    closing = writer.sentence("close", rows["close"])
    joint = "\n" if register == "poem" else " "
    room = max_words - words_in(closing)
    if room < 0:
        return _cut(writer.topic + ".", max_words)
    paragraphs: list[list[str]] = [[]]
    wanted = writer.paragraph_length()
    for sentence in _sentences(writer, rows, register == "poem"):
        if words_in(sentence) > room:
            break
        room -= words_in(sentence)
        if len(paragraphs[-1]) >= wanted:
            paragraphs.append([])
            wanted = writer.paragraph_length()
        paragraphs[-1].append(sentence)
    paragraphs[-1].append(closing)
    return _cut("\n\n".join(joint.join(paragraph) for paragraph in paragraphs), max_words)


def write_after(opening: str, prompt: str, style: str | None, max_words: int, seed: int) -> str:
    """Return a text of at most `max_words` words that begins with `opening`, a paragraph of its own."""
    room = max_words - words_in(opening)
    return f"{opening}\n\n{write(prompt, style, room, seed)}" if room > 0 else _cut(opening, max_words)


def _cut(text: str, max_words: int) -> str:
    """Shorten a text that is longer than asked to its first words."""
    words = text.split()
    return text if len(words) <= max_words else " ".join(words[:max_words]).rstrip(",;:.") + "."


def messages(prompt: str, how_many: int) -> str:
    """Return the messages of a chat, one a line."""
    about = " ".join(prompt.split())
    return "\n".join(f"Message {number} from {about}" for number in range(how_many))


def chunks(text: str, most: int = 40) -> list[str]:
    """Split a text into at most `most` pieces of whole words, as a model would stream it; joined they are the text."""
    words = re.findall(r"\S+\s*", text)
    size = max(3, -(-len(words) // most))
    return ["".join(words[at : at + size]) for at in range(0, len(words), size)]
