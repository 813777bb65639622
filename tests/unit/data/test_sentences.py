"""Sentence splitting and word starts in other scripts and languages than English."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bart_cli.config.data import ABBREVIATED, LANGUAGES, DenoisingConfig, check_language
from bart_cli.data import sentences
from bart_cli.data.abbreviations import ABBREVIATIONS, ENDING
from bart_cli.data.denoising import Denoiser, Ragged
from bart_cli.data.random_keys import derive
from bart_cli.data.sentences import SAME_RULES, language_of, spaced_sentences, split_sentences
from bart_cli.tokenizer import Tokenizer

GOLDEN = {
    "de": [
        "Am 3. Oktober kam Dr. Müller, z. B. nach Berlin.",
        "Er blieb bis zum 5. Mai 1990.",
        "Das war i. d. R. zu teuer, vgl. S. 7.",
        "„Kommst du?“, fragte sie.",
        "Die Firma Huber & Co. zahlt ca. 5 Mio. Euro.",
        "Um 20 Uhr war Schluss.",
    ],
    "ru": [
        "В 2010 г. он жил в г. Зареченске, т. е. в столице края.",
        "А. С. Орлов родился на ул. Садовой, д. 5.",
        "Там были столы, стулья и т. д.",
        "В 1999 г.",
        "Иван ушёл.",
        "«Да!» — сказал он.",
    ],
    "el": ["Τι κάνεις;", "Ο κ. Γ. Παπάς είναι εδώ.", "Ευχαριστώ!"],
    "fr": ["« Bonjour ! » dit M. Dupont.", "Il est parti à 5 h. environ.", "C’est tôt !"],
    "es": ["¿Cómo está el Sr. López?", "¡Muy bien!", "La Dra. Ruiz llegó tarde."],
    "hi": ["मेयर ने पुल खोला।", "क्या वह बड़ा है?", "हाँ।"],
    "ar": ["كيف حالك؟", "أنا بخير.", "شكرا!"],
    "hy": ["Ինչպե՞ս ես։", "Ես լավ եմ։"],
    "ko": ["시장이 다리를 열었다.", "사람들이 기뻐했다!", "정말?"],
    "ka": ["ხიდი გაიხსნა.", "წვიმა მოვიდა!"],
    "ro": ["S-a născut în str. Lungă nr. 5.", "Dl. Popescu a plecat."],
    "sv": ["Han föddes den 3 okt. 1990 i bl.a. Lund.", "Å, det regnade."],
    "vi": ["Ông ấy đã đi.", "Ở đó có cầu.", "Đẹp quá!"],
    "nl": ["De brug is open.", "'s Ochtends regent het.", "‘t Is van dhr. 's Gravesande."],
    "uk": ["Квиток коштує 5 грн. 20 коп.", "Він має 5 грн.", "Вона має більше."],
    "pl": ["Prof. Nowak mieszka przy ul. Długiej, tzn. w centrum.", "Ma 5 tys. książek."],
}
# A text for each golden rule of the Pragmatic Segmenter for English. One rule fails and is left
# out: "1) The red box 2) The blue box", where items end without punctuation.
ENGLISH = [
    ["It rained all day.", "The match was called off."],
    ["Who won?", "Nobody knows."],
    ["There she is!", "I see her."],
    ["The book is by Paul R. Moss."],
    ["See p. 12 of the report."],
    ["Did Anna and co. come to dinner?"],
    ["It was sold to Lane, Hart & Co. in May."],
    ["Let us call Anna and co.", "They may know."],
    ["It was sold to Lane, Hart & Co.", "It happened in May."],
    ["We climbed Mt. Baker on Sunday."],
    ["St. Mary's Hall is on 9th st. behind the bank."],
    ["This is Martin Jr.'s house."],
    ["She toured the U.S.A. two years ago."],
    ["He works in the E.U.", "Where do you work?"],
    ["He works in the U.S.", "Where do you work?"],
    ["He sued the U.S. Treasury in Ohio."],
    ["They stayed in the U.S. for a year."],
    [
        "At 7 a.m. Mrs. Gray opened the shop.",
        "She closed it at 8 P.M.",
        "Mrs. Gray then went home.",
    ],
    ["The lamp costs $20.50 in the shop."],
    ["The lamp costs $20.50.", "It is in the shop."],
    ["He sings tenor (He once was a baritone.) in the town choir."],
    ["Write to Ann.Lee@example.org.", "I will answer."],
    ["It is at: https://www.example.21.org/a-page/more_of_it.html.", "Have a look."],
    ["He looked up, 'It is late.' he said."],
    ['He looked up, "It is late." he said.'],
    ['He looked up, "It is late."', "He closed the book."],
    ["Stop!!", "That is mine."],
    ["What??", "Who said so?"],
    ["Really!?", "Was it you?"],
    ["Really?!", "Was it you?"],
    ["1.) The red box", "2.) The blue box"],
    ["1.) The red box.", "2.) The blue box."],
    ["1) The red box.", "2) The blue box."],
    ["1. The red box", "2. The blue box"],
    ["1. The red box.", "2. The blue box."],
    ["• 3. The red box", "• 4. The blue box"],
    ["⁃3. The red box", "⁃4. The blue box"],
    ["a. The red box", "b. The blue box", "c. The green box"],
    ["This line is\nbroken in its middle by a page."],
    ["It was a warm \nevening by the sea."],
    ["It lies at N°. 2047.118.905.", "Nobody digs there."],
    ["He was hired by Yahoo! for its legal department."],
    ["It was only the two of us, you and I.", "Have you met Robert I. Hale before?"],
    ["He wrote that in such a life “the rules of the world seem less hard. . . .”"],
    ['"Curie [...] took the notes of a year [...]" (Hill 12).'],
    ["Where the end of a sentence is left out, put the marks there . . . .", "Then goes the next."],
    ["I never said so....", "He shut the door."],
    ["I was not ... well, I mean...look . . . the point is . . . I did not mean to."],
    [
        "A habit that was weaker . . . was that of joining words. . . .",
        "It was not given up. . . .",
    ],
]
UNSPACED = {
    "zh": ["市长开放了新桥。", "“真的吗？”", "人们很高兴！", "第1.5节在这里。"],
    "ja": ["「行こう。」と彼は言った。", "雨が降る。", "本当？", "はい。"],
}


@pytest.mark.parametrize("language", GOLDEN)
def test_sentences_end_where_readers_of_the_language_end_them(language: str) -> None:
    assert split_sentences(" ".join(GOLDEN[language]), language) == GOLDEN[language]


@pytest.mark.parametrize("golden", ENGLISH, ids=lambda golden: golden[0][:24])
def test_english_rules(golden: list[str]) -> None:
    assert split_sentences(" ".join(golden), "en") == golden


@pytest.mark.parametrize("language", UNSPACED)
def test_scripts_without_spaces_are_split_and_stay_without(language: str) -> None:
    text = "".join(UNSPACED[language])
    assert split_sentences(text) == UNSPACED[language]
    assert "".join(spaced_sentences(text)) == text


@pytest.mark.parametrize("text", ["one word and another " * 50, "word" * 250, "\u8bcd" * 999])
def test_an_endless_sentence_is_split_without_loss(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(sentences, "LONGEST", 100)
    found = spaced_sentences(f"A first one. {text}")
    assert "".join(found) == f"A first one. {text}".strip()
    assert 90 < max(map(len, found)) <= 100
    assert all(part.startswith(" ") for part in found[1:]) == (" " in text)


def test_other_scripts_are_split_without_a_language_and_latin_is_english() -> None:
    for language in ("ru", "el", "hi", "ar", "hy", "ko", "ka", "vi"):
        text = " ".join(GOLDEN[language])
        assert split_sentences(text) == GOLDEN[language], language
    assert language_of("Der Bürgermeister öffnete die Brücke.") == "en"
    assert language_of("Мэр открыл мост in London.") == "ru"


def test_thai_is_split_at_spaces_once_a_sentence_is_long() -> None:
    text = " ".join(["นายกเทศมนตรีเปิดสะพานใหม่"] * 60)
    sentences = split_sentences(text)
    assert len(sentences) == 20
    assert " ".join(sentences) == text


def test_only_white_space_is_lost_and_nothing_is_moved() -> None:
    alphabet = 'aZ.!?。！？।؟;։…1г\n \t\u2028\xa0\u3000"“”«»()「」é\u0301\ud800字ก\x00'
    generator = random.Random(0)
    for _ in range(3000):
        text = "".join(generator.choices(alphabet, k=generator.randint(0, 40)))
        for language in ("auto", "en", "de", "ru", "ja", "el"):
            for split in (split_sentences, spaced_sentences):
                assert "".join("".join(split(text, language)).split()) == "".join(text.split())


@pytest.mark.parametrize("unit", ["г. ", ".", "。", '"', "\n", " ", "\n ", "ก ", "1. ", "«»"])
def test_no_text_stalls_the_splitter(unit: str) -> None:
    split_sentences(unit * 200_000, "ru")  # quadratic code would take minutes


def chinese(generator: random.Random) -> str:
    letters = "市长昨天开放了新桥人们很高兴水果工厂学校河流城北南东西山路车站医院老师"
    return "".join(
        "".join(generator.choices(letters, k=generator.randint(6, 30))) + "。" for _ in range(8)
    )


@pytest.mark.parametrize("corpus", ["chinese", "english"])
def test_the_masked_share_of_chinese_text_is_the_ratio(corpus: str) -> None:
    generator = random.Random(1)
    texts = [chinese(generator) for _ in range(300)]
    learned_from = texts if corpus == "chinese" else ["The mayor opened the bridge."]
    tokenizer = Tokenizer.train(learned_from, 600)  # trained on English: bytes of characters
    rows = tokenizer.encode_batch(texts, special=False)
    tokens = Ragged(np.array([t for r in rows for t in r]), np.array([len(r) for r in rows]))
    sentences = Ragged(tokens.lengths, np.ones(len(rows), dtype=np.int64))
    denoise = Denoiser(DenoisingConfig(random_ratio=0), tokenizer)
    origins = denoise.origins(
        tokens, sentences, derive(0, 0, np.arange(len(rows)).astype(np.uint64))
    )
    kept = np.array([(origins.row(i) >= 0).sum() for i in range(len(rows))])
    shares = 1 - kept / tokens.lengths
    assert abs(1 - kept.sum() / tokens.lengths.sum() - 0.3) < 0.01
    assert shares.min() > 0.1  # for each sample, not only in total
    assert shares.max() < 0.5


def test_the_languages_that_an_error_names_are_those_with_abbreviations() -> None:
    assert ABBREVIATED.split(", ") == sorted({*ABBREVIATIONS, "en"} - {""})
    assert set(SAME_RULES) < LANGUAGES
    assert check_language("hu") == "hu"
    for code in ("german", "deu", "xx", "en_XX"):
        with pytest.raises(ValueError, match=r"an ISO 639-1 code such as de .*ru, sv, tr"):
            check_language(code)


def test_tables_hold_no_entry_that_cannot_match() -> None:
    for language, words in ABBREVIATIONS.items():
        known = words | ABBREVIATIONS[""]
        ending = ENDING.get(language, frozenset())
        assert ending <= known
        matched = {word for word in words - ending if sentences.LETTERS.fullmatch(word)}
        assert matched == {word for word in matched if len(word) > 5}
    english = sentences.ABBREVIATIONS
    assert not english & (sentences.TIMES | sentences.NUMBERED)
    assert english >= sentences.AMBIGUOUS
    assert [word for word in english if sentences.INITIAL.match(word)] == []
