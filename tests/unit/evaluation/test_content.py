"""Content metrics, compared with manual counts and a brute-force count of n-grams."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bart_cli.evaluation.content import measure, numbers_in

ALL = ("novelty", "compression", "repetition", "coverage")
ARTICLE = (
    "The mayor of Glenford opened the bridge on Monday. It cost 1,200,000 euros, said Prime "
    "Minister Irene Reyes. About 12.5 per cent of Glenford's people came by 9:30."
)


def missing(summary: str, article: str = ARTICLE) -> list[str]:
    (found,) = measure([article], [summary], ["coverage"])
    return [*found.names, *found.numbers]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,200 or 1’200 or 1\u202f200, 1200", ["1200"]),
        ("2.50, 2.5 and 2,5", ["2.5"]),
        ("1,00,000.50", ["100000.5"]),
        ("1.200.000,5 euros", ["1200000.5"]),
        ("by 5-0 at 09:30 on 12.05.2024.", ["5", "0", "9", "30", "12", "2024"]),
        ("2024年3月5日", ["2024", "3", "5"]),
        ("٢٠٢٤ and ٣٫٥", ["2024", "3.5"]),
        ("G7, A380 and 20th", ["7", "380", "20"]),
        ("no digits: ½ ² Ⅷ", []),
    ],
)
def test_numbers_are_equal_when_their_values_are(text: str, values: list[str]) -> None:
    assert list(numbers_in(text)) == values


@pytest.mark.parametrize(
    ("summary", "lacking"),
    [
        ("The bridge cost 1200000 euros.", []),
        ("The bridge cost 1300000 euros.", ["1300000"]),
        ("About 12.4 per cent came.", ["12.4"]),
        ("Irene Reyes spoke in Glenford.", []),
        ("Irene Brown spoke in Pineside.", ["Irene Brown", "Pineside"]),
        ("Mayor Reyes, the Prime Minister, left.", []),
        ("Mayor Irene Reyes left.", []),
        ("Opened by Irene, the bridge cost much.", []),
        ("Cheap it was, I think.", ["Cheap"]),
        ("GLENFORD: THE BRIDGE OPENED", []),
        ("", []),
    ],
)
def test_names_and_numbers_not_in_the_article(summary: str, lacking: list[str]) -> None:
    assert missing(summary) == lacking


def test_a_word_common_in_another_article_is_not_a_name_at_a_sentence_start() -> None:
    summaries = ["Cheap it was.", "Nothing."]
    found = measure([ARTICLE, "Bread is cheap, nothing more."], summaries, ["coverage"])
    assert [content.names for content in found] == [[], []]


@pytest.mark.parametrize(
    ("article", "summary", "lacking"),
    [
        ("Мэр Глинска Иван Орлов открыл мост.", "Иван Орлов и Пётр открыли мост.", ["Пётр"]),
        ("北京市长3月5日打开了大桥。", "市长3月6日打开大桥", ["6"]),
        ("افتتح العمدة الجسر عام ٢٠٢٤", "الجسر ٢٠٢٥", ["٢٠٢٥"]),
        ("ЗҖ ǅungla stoji.", "ǅungla i ǅep.", ["ǅep"]),
    ],
)
def test_any_script(article: str, summary: str, lacking: list[str]) -> None:
    assert missing(summary, article) == lacking


def test_a_script_without_capitals_has_no_names_to_cover() -> None:
    (found,) = measure(["北京市长"], ["上海市长"], ["coverage"])
    assert found.measures == {"numbers_covered": None, "names_covered": None}


def test_novelty_repetition_and_compression_equal_manual_counts() -> None:
    (found,) = measure(["a b c d e f"], ["A b, a b x"], ALL)
    source, words = "a b c d e f".split(), "a b a b x".split()
    bigrams = list(pairwise(words))
    novel = [gram for gram in bigrams if gram not in list(pairwise(source))]
    assert found.measures["novelty_1"] == 100 * 1 / 5
    assert found.measures["novelty_2"] == 100 * len(novel) / len(bigrams) == 50
    assert found.measures["repetition_1"] == 100 * 2 / 5
    assert found.measures["repetition_2"] == 100 * 1 / 4
    assert found.measures["compression"] == 6 / 5
    (short,) = measure(["a b"], ["a"], ALL)
    assert short.measures["novelty_2"] is short.measures["repetition_4"] is None
    (empty,) = measure(["a b"], [""], ALL)
    assert empty.measures["compression"] is None
