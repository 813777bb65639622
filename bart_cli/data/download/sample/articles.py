"""Turn stories into documents: news articles with their briefs, digests and features."""

from __future__ import annotations

from collections.abc import Callable

from bart_cli.data.download.sample import happenings, public_life
from bart_cli.data.download.sample.world import Cast, Story

KINDS: tuple[Callable[[Cast], Story], ...] = (
    public_life.election, public_life.results, happenings.storm, happenings.match,
    happenings.finding, public_life.ruling, public_life.strike, public_life.building,
    happenings.recall, happenings.rescue, happenings.prize, public_life.school,
)  # fmt: skip
WEATHER = (
    "A light rain fell over {town} in the morning, and most shops opened late.",
    "The sun had not yet come up over {town} when the first trucks rolled in.",
    "It was one of those quiet days on which little seems to happen in {town}.",
    "Fog lay over the river, and the church clock of {town} could hardly be seen.",
    "Snow was forecast for {town}, but the streets stayed dry.",
    "The market square of {town} smelled of bread and wet leaves.",
)
PLACE = (
    "{town} is known for its apple orchards and for a bridge of red stone.",
    "Tourists know {town} mostly for its lake and the old mill.",
    "For decades {town} lived from the railway that passes through it.",
    "Many families in {town} have worked in the same trade for generations.",
    "{town} lies between two hills and has a single main road.",
    "The name of {town} goes back to a trading post beside the water.",
)
REMARKS = (
    "Details are to be published next week.",
    "The local paper printed a special page.",
    "A small crowd had gathered in front of the town hall.",
    "Not everybody agreed with what they heard.",
    "The phones in the town hall did not stop ringing.",
    "Many stayed until late in the evening to talk about it.",
    "Radio stations carried the story through the night.",
)


def news_pair(cast: Cast) -> tuple[str, str]:
    """An article and its brief. The article does not begin with the news."""
    story = cast.random.choice(KINDS)(cast)
    return news_article(cast, story), story.brief


def news_article(cast: Cast, story: Story) -> str:
    """An opening, then the news interleaved with other sentences."""
    others = list(story.others)
    cast.random.shuffle(others)
    scene = cast.random.choice((*WEATHER, *PLACE)).format(town=story.town)
    opening = [scene, others.pop()]
    cast.random.shuffle(opening)
    between = [*others, cast.random.choice(story.voices), *cast.random.sample(REMARKS, 2)]
    between = between[: cast.random.randint(1, len(between))]
    body = list(story.news)
    for sentence in between:
        body.insert(cast.random.randint(0, len(body)), sentence)
    return " ".join([*opening, *body])


def digest(cast: Cast) -> str:
    """A column of briefs, as papers print them on the first page."""
    head = cast.pick("In brief.", "News of the day.", "What else happened.", "The week in short.")
    briefs = [cast.random.choice(KINDS)(cast).brief for _ in range(cast.random.randint(2, 4))]
    return " ".join([head, *briefs])


def feature(cast: Cast) -> str:
    """A piece about a town: scenes, and remarks on several events there."""
    town = cast.town()
    lines = [text.format(town=town) for text in cast.random.sample((*WEATHER, *PLACE), 3)]
    for _ in range(2):
        story = cast.random.choice(KINDS)(cast)
        lines += [*story.news[:3], cast.random.choice(story.voices)]
    return " ".join([*lines, cast.random.choice(REMARKS)])


def document(cast: Cast) -> str:
    """A document of the pre-training corpus: mostly news, some digests and features."""
    draw = cast.random.random()
    if draw < 0.55:
        return news_article(cast, cast.random.choice(KINDS)(cast))
    return digest(cast) if draw < 0.8 else feature(cast)
