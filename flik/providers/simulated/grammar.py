"""The phrases that simulated texts are made of, by register. `{name}` is filled by `text`.

Slots: {topic} {thing} {other} nouns of the prompt; {aspect} {scene} {time} {feeling} {verb}
{doing} {person} and so on are rows of `WORDS`. Every row is a deck: it is dealt to its end
before a card comes back. `{name!c}` begins with a capital, `{name!l}` with a small letter.
"""

from __future__ import annotations

from collections.abc import Mapping

# What is never a noun of the prompt; and what comes before one
SKIPPED_WORDS = """
a an the and or but nor of in on at to for from by with without as is are was were be been being it its this
that these those i you he she we they me my your his her our their what which who whom whose why how when
where do does did can could should would will shall may might must not no yes please write tell give make
create generate explain describe compose draft produce about into over under me us some any all one two three
short long brief little word words sentence sentences paragraph paragraphs essay story tale poem haiku text
article blog post summary summarise summarize let lets if then than so such just very really also there here
up down out off again more most
"""
DETERMINER_WORDS = """
a an the my your his her our their its this these those some any
"""
# Words that ask for a poem, for a story
POEM_WORDS = """
poem poetry poetic haiku verse verses lyrics song sonnet ode lyrical
"""
STORY_WORDS = """
story tale fable fairy novel narrative adventure once legend chapter fiction
"""

WORDS: Mapping[str, tuple[str, ...]] = {
    "aspect": (
        "the timing", "the scale of it", "the order of the steps", "the quiet middle part", "the cost",
        "the first hour", "the point where two parts meet", "the way it ends", "the small print",
        "the people involved", "the exception", "the size of the pieces", "the distance between plan and practice",
        "the part nobody sees", "the handover", "the rhythm of the work", "the habit behind it", "the boundary",
        "the memory of what went before", "the margin",
    ),
    "quality": (
        "simple", "patient", "visible", "honest", "robust", "light", "precise", "reversible", "calm", "generous",
        "steady", "deliberate", "modest", "clear", "durable", "playful", "careful", "even", "open", "exact",
    ),
    "verb": (
        "changes", "reveals", "shapes", "rewards", "tests", "outlasts", "explains", "slows", "sharpens", "steadies",
        "complicates", "deepens", "supports", "interrupts", "colours", "anticipates", "narrows", "widens", "softens",
        "repeats",
    ),
    "doing": (
        "watching closely", "asking a better question", "starting small", "measuring twice", "leaving room for error",
        "writing things down", "trying the plain version first", "waiting for the second opinion", "taking it apart",
        "listening before acting", "keeping the old notes", "naming each part", "going back to the beginning",
        "comparing two mornings", "drawing it on paper", "working in the open",
    ),
    "when": (
        "On an ordinary day", "Under pressure", "In the long run", "At first glance", "Early on", "In practice",
        "Seen from outside", "Once the novelty fades", "Between two deadlines", "In a good season",
        "After the second attempt", "With a little distance", "Over a year or two", "In small groups",
        "When things go wrong", "Late in the process",
    ),
    "observer": (
        "a beginner", "an experienced hand", "a careful reader", "a sceptic", "a neighbour", "a visitor",
        "an engineer", "a teacher", "a child", "an accountant", "a gardener", "a sailor", "a historian",
        "a night-shift nurse", "a cook", "a carpenter",
    ),
    "link": (
        "Still", "By contrast", "For the same reason", "Even so", "As a result", "More often than not",
        "Put differently", "At the same time", "In other words", "Beyond that", "For example", "Oddly enough",
        "In return", "Up to a point",
    ),
    "place": (
        "the harbour", "the old library", "the hill above the town", "the last station", "the kitchen",
        "the empty square", "the river path", "the workshop", "the roof", "the narrow bridge", "the orchard",
        "the lighthouse stairs", "the market", "the edge of the map",
    ),
    "time": (
        "before sunrise", "on the third day", "that winter", "when the rain stopped", "at noon", "in the blue hour",
        "after the last train", "on the first warm evening", "just past midnight", "all that week",
        "as the lamps came on", "when the bells had finished", "a month later", "by the end of the summer",
    ),
    "weather": (
        "The wind turned", "Fog came up from the water", "The light went thin and gold", "Snow lay on every sill",
        "The sky cleared all at once", "Somewhere a door closed", "The street was still wet",
        "Swallows crossed the yard", "The tide went out", "A bell rang twice", "The lamps hummed",
        "Dust hung in the sun",
    ),
    "act": (
        "opened the window", "read the letter again", "counted the steps", "lit the small lamp",
        "waited without a word", "drew a line in the dust", "folded the map", "followed the sound",
        "set two cups on the table", "turned the key", "wrote one sentence and stopped", "walked as far as the gate",
        "picked up the thread", "laughed for the first time",
    ),
    "feeling": (
        "relief", "curiosity", "a kind of homesickness", "stubborn hope", "surprise", "unease", "tenderness", "pride",
        "doubt", "something like courage", "calm", "impatience", "gratitude", "wonder",
    ),
    "person": (
        "Mara", "Ilya", "Noor", "Tomas", "Wren", "Sefa", "Jonas", "Amina", "Lise", "Kofi", "Petra", "Hana",
    ),
    "image": (
        "salt", "slow water", "a lit window", "folded paper", "the underside of leaves", "a coin in the dark",
        "warm stone", "unposted letters", "a bird's shadow", "the last note", "clean snow", "a held breath",
        "copper light", "an open hand",
    ),
    "move": (
        "drifts", "gathers", "waits", "returns", "burns low", "opens", "keeps time", "leans closer", "falls silent",
        "begins again", "remembers", "holds", "loosens", "shines",
    ),
}  # fmt: skip

ESSAY: Mapping[str, tuple[str, ...]] = {
    "open": (
        "There is more to {topic} than a first look suggests.",
        "Most accounts of {topic} begin in the wrong place.",
        "It is easy to talk about {topic} and hard to say something useful about it.",
        "Ask {observer} about {topic} and the answer will start with {aspect}.",
        "The interesting thing about {topic} is not what it is but what it does to everything around it.",
        "Anyone who has spent time with {topic} knows that {aspect} decides more than talent does.",
    ),
    "body": (
        "{when}, {thing} {verb} {aspect}.",
        "{link}, {doing} {verb} {thing} more than any plan.",
        "What {observer} notices first is {aspect}; what stays is {thing}.",
        "{when}, the difference between {thing} and {other} comes down to {aspect}.",
        "The best version of {thing} is {quality}, and it is {quality} on purpose.",
        "{link}, {thing} {verb} {other} only when {aspect} is {quality}.",
        "It helps to treat {thing} as something {quality} rather than something finished.",
        "{observer!c} would call this {quality}, and would begin by {doing}.",
        "{when}, {doing} turns out to be the shortest way to {thing}.",
        "Nobody plans for {aspect}, and yet that is where {thing} usually succeeds or fails.",
        "If {thing} is to stay {quality}, then {aspect} has to be {quality} as well.",
        "{link}, the common advice about {thing} ignores {aspect}.",
        "There are two ways to approach {thing}: by {doing}, or by {doing}. The first is {quality} and slow; "
        "the second {verb} {other} sooner.",
        "{when}, {observer} and {observer} will disagree about {thing}, and both will have a reason.",
        "{doing!c} sounds like a detail, but it {verb} everything that follows.",
        "Without {other}, {thing} would be {quality} in theory and useless by Thursday.",
        "{link}, {aspect} {verb} {thing} whether we look at it or not.",
        "A {quality} approach to {thing} leaves room for {other}.",
        "The question is seldom whether {thing} works, but for whom and {when!l}.",
        "{when}, it is worth asking what {thing} would look like if it had to be {quality}.",
        "{observer!c} once put it well: {thing} is {other} with better manners.",
        "Three things matter here: {aspect}, {aspect} and, more than either, {doing}.",
        "What looks like a problem with {thing} is often a problem with {aspect}.",
    ),
    "close": (
        "In the end, {topic} is less a puzzle than a practice, and practice rewards {doing}.",
        "So the next step is a {quality} one: {doing}, and seeing what {topic} makes of it.",
        "That may be the real lesson of {topic}: {aspect} was never separate from {other}.",
        "Seen this way, {topic} stays {quality} for exactly as long as somebody looks after {aspect}.",
    ),
}

STORY: Mapping[str, tuple[str, ...]] = {
    "open": (
        "Nobody in town spoke of {topic} until {hero} came back.",
        "{time!c}, {hero} went up to {place} to look for {topic}.",
        "The first time {hero} heard about {topic}, it was {time}, at {place}.",
        "{hero} had promised to leave {topic} alone, and kept the promise until {time}.",
    ),
    "body": (
        "{weather}, and {hero} {act}.",
        "{time!c}, {person} came to {place} and asked about {thing}.",
        '"You won\'t find {thing} there," said {person}, and {act}.',
        "{hero} felt {feeling}, and under it {feeling}.",
        "They took the road past {place}, because {person} had once seen {thing} there.",
        "What they found was not {thing} but {other}, which was worse, and better.",
        "{weather}.",
        "{person} {act}, as if {thing} could wait.",
        "For a while nothing happened; then {hero} {act}.",
        "It was {person} who understood first that {thing} and {other} were the same story.",
        "{time!c}, {place} looked smaller than it had in memory.",
        '"Tell me about {thing}," {hero} said, and {person} {act}.',
        "There was {feeling} in the way {person} said it.",
        "From {place} they could see everything: the roofs, the water, and {thing}.",
        "{hero} {act}, and for once did not think of {other}.",
        "Somebody had left {image} where {thing} should have been.",
        "{weather}, and with it came {feeling}.",
        "Neither of them mentioned {other} on the way back from {place}.",
    ),
    "close": (
        "Years later, whenever people asked about {topic}, {hero} only smiled and {act}.",
        "{weather}, {hero} {act}, and {topic} belonged to everyone again.",
        "And that, {person} liked to say, is how {hero} brought {topic} home.",
    ),
}

POEM: Mapping[str, tuple[str, ...]] = {
    "open": ("{topic!c} {move},", "Here is {topic}, and here {image}:", "Say {topic} slowly:"),
    "body": (
        "{image!c} {move} {time},",
        "and {thing} {move} like {image},",
        "{thing!c}, {image}, {other},",
        "{time} it {move}",
        "beside {place}, where {image} {move}.",
        "No one has told {thing} about {other}.",
        "{weather}; {thing} {move},",
        "half {feeling}, half {image},",
        "until {other} {move}",
        "and what was {quality} is {quality} again.",
        "I kept {image} for {thing}.",
        "Leave {place} to {thing},",
        "leave {image} where it {move}.",
        "{feeling!c} has a colour, and it {move}.",
    ),
    "close": ("and {topic} {move}.", "{topic!c}: {image}, and then the morning.", "Nothing ends. {topic!c} {move}."),
}
