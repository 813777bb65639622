"""The invented world of the sample: people, places, organizations, numbers, dates.

Names are combined from pools, so that a summary must copy them from its article.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

FIRST = """
Alice Ben Clara David Elena Frank Grace Henry Irene Jack Karen Leo Maria Nathan Olivia Peter Rosa
Simon Teresa Victor Wendy Adam Bella Carl Diana Edward Fiona George Hannah Ivan Julia Kevin Laura
Martin Nina Oscar Paula Robert Sarah Thomas Anna Bruno Celia Daniel Emma Felix Gloria Hugo Iris
James Kate Louis Megan Noah Ruth Samuel Tina Walter Amy Boris Colin Donna Eric Flora Gavin Helen
""".split()
LAST = """
Adams Baker Carter Dixon Ellis Foster Grant Hughes Irwin Jensen Keller Lambert Mason Norris Owens
Palmer Quinn Reyes Sutton Turner Vargas Walsh Young Archer Bishop Collins Dalton Evans Fisher Gibson
Harper Ingram Jordan Knight Lawson Miller Nolan Osborne Parker Rhodes Stone Tucker Vaughn Weaver
Abbott Bennett Cooper Drake Emerson Fletcher Gardner Holt Kemp Lopez Morris Novak Ortega Pierce
Ramsey Shaw Thornton Underwood Wagner Barnes Cole Doyle Fox Greene Hayes Kane Lane Marsh Nash Page
""".split()
TOWN_HEAD = """
Ash Brook Clear Deer East Fair Glen Hart King Lake Mill North Oak Pine Red River Rock Silver Spring
Stone Wood White Green Black Bridge High Long New West Winter
""".split()
TOWN_TAIL = "ford ton field wood port dale ham view gate mouth burg haven side land well".split()
FIRM_HEAD = """
Apex Beacon Cobalt Delta Ember Falcon Granite Harbor Indigo Juniper Kestrel Lunar Meridian Nova
Orchid Pioneer Quartz Summit Titan Union Vertex Willow Zenith Atlas Crown Eagle Liberty Metro
""".split()
FIRM_TAIL = (
    "Foods Motors Energy Bank Airlines Steel Media Software Textiles Pharma Rail Mining".split()
)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = """
January February March April May June July August September October November December
""".split()


@dataclass(frozen=True)
class Person:
    """`str()` is the full name."""

    first: str
    last: str

    def __str__(self) -> str:
        return f"{self.first} {self.last}"


@dataclass(frozen=True)
class Story:
    """An event, told at length and in brief."""

    town: str
    news: list[str]  # the essential facts, in order
    others: list[str]  # earlier or unrelated events
    voices: list[str]  # quotes and reactions
    # Paraphrases the news. Determined by the event, never by chance, so that a careful reader could
    # write it.
    brief: str


class Cast:
    """Names for one document, drawn without repetition; no two people share a surname."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._used: set[str] = set()

    def person(self) -> Person:
        return Person(self._fresh(FIRST), self._fresh(LAST))

    def town(self) -> str:
        while True:
            name = self.random.choice(TOWN_HEAD) + self.random.choice(TOWN_TAIL)
            head = name.lower()
            if name not in self._used and not any(head == tail * 2 for tail in TOWN_TAIL):
                self._used.add(name)
                return name

    def firm(self) -> str:
        """A new company whose name is identified by its first word."""
        return f"{self._fresh(FIRM_HEAD)} {self.random.choice(FIRM_TAIL)}"

    def number(self, low: int, high: int, step: int = 1) -> str:
        """A number that does not occur in the document yet, with thousands separators."""
        while True:
            text = f"{self.random.randrange(low, high + 1, step):,}"
            if text not in self._used:
                self._used.add(text)
                return text

    def day(self) -> str:
        return self._fresh(DAYS)

    def month(self) -> str:
        return self._fresh(MONTHS)

    def pick(self, *options: str) -> str:
        return self.random.choice(options)

    def story(self, town: str, text: str, brief: str) -> Story:
        """A story, with a phrasing chosen for each sentence.

        `text` has a paragraph each for news, others and voices, with one sentence per line; a line
        that begins with `/` rephrases the one above.
        """
        paragraphs = re.sub(r"\s+/ ", " / ", text.strip()).split("\n\n")
        news, others, voices = (
            [self.line(line.strip()) for line in part.split("\n")] for part in paragraphs
        )
        return Story(town, news, others, voices, brief)

    def line(self, phrasings: str) -> str:
        """One of the phrasings of a sentence, which are separated by ` / `."""
        options = phrasings.split(" / ")
        return self.pick(*options) if len(options) > 1 else phrasings

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def _fresh(self, pool: list[str]) -> str:
        while True:
            word = self.random.choice(pool)
            if word not in self._used:
                self._used.add(word)
                return word
