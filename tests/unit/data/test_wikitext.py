"""Wikitext: no lost or joined words, no gaps in sentences, time linear in the length."""

# ruff: noqa: E501
from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bart_cli.data.download import wiki_templates
from bart_cli.data.download.wiki_templates import EXPANDERS, SINGULAR, UNITS, expand_template
from bart_cli.data.download.wikipedia_dump import WikiPage, _is_list
from bart_cli.data.download.wikitext import DROPPED, LINK_SECTIONS, NO_TEXT, clean_wikitext


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("born in London<br>and died in Paris.<br />Her years", "born in London and died in Paris. Her years"),
        ("One.<p>Two.</p><div class=x>Three.</div>Four.", "One. Two. Three. Four."),
        ("{{convert|93|m|ft}} and {{cvt|5|to|10|sqmi}}, {{convert|5|ft|10|in}}", "93 m and 5 to 10 sq mi, 5 ft 10 in"),
        ("{{formatnum:1200}} of {{val|3.5|u=kg}}, {{frac|1|2}}", "1200 of 3.5 kg, 1/2"),
        ("The city of {{lang|de|Neustadt}} ({{lang-de|Neustadt}})", "The city of Neustadt (Neustadt)"),
        ("{{Nihongo|Tokyo|\u6771\u4eac|T\u014dky\u014d}} is", "Tokyo (\u6771\u4eac, T\u014dky\u014d) is"),
        ("He said:{{quote|To be.}}Then", "He said: To be. Then"),
        ("{{nowrap|a b}}{{nbsp}}c{{snd}}d", "a b c \u2013 d"),
        ("Ada ({{birth date|1815|12|10|df=y}} {{ndash}} {{death date|1852|11|27}})", "Ada (10 December 1815 \u2013 November 27, 1852)"),
        ("{{circa|1200}}, {{as of|2012|3|lc=y}}", "c. 1200, as of March 2012"),
        ("A fly ({{IPA-en|fla\u026a}}) is small.{{cn}}", "A fly is small."),
        ("One is here. There are {{unknown|x}} of them. Two is here.", "One is here. Two is here."),
        ("One. The sum <math>x^2</math> is large. Two.", "One. Two."),
        ("Write &lt;b&gt; and <nowiki>[[x]] {{y}} ''z''</nowiki>.", "Write <b> and [[x]] {{y}} ''z''."),
        ("A<ref name=a>B {{cite|c}}</ref> b.<ref name=a /> C<!-- d", "A b. C"),
        ("[[Imagem:a.jpg|thumb|A [[b]] c]][[\u0424\u0430\u0439\u043b:a.jpg]] D", "D"),
        ("See [[:Category:Towns]], [[:Category:X|x]].[[Category:Y]]", "See Category:Towns, x."),
        ("[[Foo (bar)|]] [[a|b]]s [[de:A]] [[2001: A]]", "Foo bs 2001: A"),
        ("! one\n| two\n#three", "! one | two three"),
        ("a\n{| class=x\n| b\n{|\n|c\n|}\n|}\nd", "a d"),
        ("a\n{|\n| b\nc", "a c"),
        ("== A ==\n=== B ===\nText.\n== Why? ==\nMore.\n== Empty ==", "A. B. Text. Why? More."),
        ("[http://x.example a page] [http://x.example]", "a page"),
        ("'''''a''''' ''b'' 10<sup>6</sup> H<sub>2</sub>O", "a b 10^6 H2O"),
        ("The sound {{IPA|/o/}} of {{IPA|de|o}} is {{angbr|o}}.", "The sound /o/ of [o] is \u27e8o\u27e9."),
        ("A{{chem|O|2}} ({{resize|70%|b}}) {{script|Copt|c}}, {{HMS|Ajax|22}}, {{ship|HMS|Vi|2}}, a {{sclass|Leigh|boat}} for {{INR|5}} 3{{e|9}}", "AO2 (b) c, HMS Ajax, HMS Vi, a Leigh-class boat for \u20b95 3 \u00d7 10^9"),
        ("It lies at {{coord|1|2}}. Far.{{coord|1|2|display=title}} {{audio|a.ogg|Bern}} is.", "Far. Bern is."),
        ("Gone.<ref>x</ref>The rest, <ref name=a/>then <ref>b</ref>. (c <ref>d</ref>), e . . . f", "Gone. The rest, then. (c), e . . . f"),
        ("A<ref>{{Cite|title = b</ref name\"c\"> d|e = f}}</ref> g", "A g"),
        ("A line\nthat wraps {{unknown}} here\nand ends. The next.\n* item\nb", "The next. item b"),
        ("-{zh-hans:\u9f20\u6807; zh-hant:\u6ed1\u9f20}- -{T|zh-cn:a;zh-tw:b}- -{c}-", "\u9f20\u6807 c"),
        ("{{date|1|janvier|2000}}, {{unit\u00e9|5|km}}, {{s-|XIX}}", "1 janvier 2000, 5 km, XIXe si\u00e8cle"),
        ("l'''Avare'' de", "l'Avare de"),
        ("The ''Titanic'''s hull, ''Foo''{{'}}s, ''''bold'''", "The Titanic's hull, Foo's, 'bold"),
        ("A {{convert|50|mi|km|adj=on}} road, a {{convert|9|ft|adj=mid|-long}} one, {{cvt|1|acre}}, {{cvt|2.5|e6m3}}, {{cvt|2+1/2|in}}", "A 50-mile road, a 9 ft-long one, 1 acre, 2.5 million m\u00b3, 2 1/2 in"),
        ("{{DEFAULTSORT:B, Anna}}Anna {{n\u00e9e|Cole}}, {{post-nominals|OBE|FRS}}, was {{height|ft=6|in=2}}.", "Anna n\u00e9e Cole, OBE FRS, was 6 ft 2 in."),
        ("It is {{#if:x|a|b}}{{#if:|c|d}} {{sic|teh}}. It cost ${{Inflation|US|1|1950}} then.", "It is ad teh."),
        ("2{{frac|1|2}} of {{simplenuclide|lithium|7}}. Bad.{{weasel inline|x}} {{val|3|-|5|u=m}}", "2 1/2 of lithium-7. Bad. 3\u20135 m"),
        ("{{Columns-list|2|\n* Alpha\n* Beta\n}}\nText.\n==Weblinks==\n* x\n==Siehe auch==\ny", "Alpha Beta Text."),
        ("{{{1|a}}} {{!}} {{unclosed [[b c", "a | unclosed b c"),
        ("{{#if:x|<i>b = c</i>|d}} {{#ifeq:a|b|no|yes}}, {{#ifeq:1|01|same}}{{#ifeq:a|b|c}}", "b = c yes, same"),
        ("{{#switch: y | x = 1 | y | z = [[a|b]] {{nowrap|= {{cvt|3|km}}}} | 4}}", "b = 3 km"),
        ("{{#switch:q|x=1|#default=2|y=3}}, {{#switch:q|x=1|2}}, {{#switch:q|x=1}}, {{#switch:{{#ifeq:a|a|x}}|x=1}}.", "2, 2,, 1."),
        ("One. It is {{#switch:{{unknown}}|a=b|c}}. Two. {{#ifeq:{{unknown}}|a|b}} is. Three.", "One. Two. Three."),
        ("A town.\n{{s-start}}\n{{unknown}}\n{{navbox x}}\n{{unknown}}", "A town."),
        ("One.{{unknown}} {{unknown}} Two. {{unknown}} is. Three.", "One. Two. Three."),
        ("Een.\n== Noten en/of referenties ==\nTwee.\n==Notes, citations & sources==\n3\n==Land and notes==\n4", "Een. Land and notes. 4"),
        ("It sold.\n{{Unknown chart|x}}\nIt sank {{unknown}}\nslowly.\n{{unknown}}{{unknown}}\n\nIt rose.", "It sold. It rose."),
        ("{{Ficha|x}}\n{{unknown}}\n'''A''' is.\n==B==\n{{unknown}}\nIt is.\n{{unknown}}", "A is. B. It is."),
        ("{{date|2001-05-01}}, {{ill|Anna|fr|Anna X|lt=Ann}}, {{ill|Bo|de}}, {{no.|5}}", "1 May 2001, Ann, Bo, No. 5"),
    ],
)  # fmt: skip
def test_markup(wikitext: str, text: str) -> None:
    assert " ".join(clean_wikitext(wikitext).split()) == text


WRAPPED = [
    "{}", "[[{}]]", "[[Target|{}]]", "''{}''", "'''{}'''", "{{{{lang|de|{}}}}}", "{{{{nowrap|{}}}}}",
    "<small>{}</small>", "{}<ref>gone</ref>", "{}{{{{cn|date=x}}}}", "[http://x.example {}]",
    "<!-- gone -->{}", "[[File:gone.jpg|thumb|[[gone]] gone]] {}", "<nowiki>{}</nowiki>", "|{}", "!{}",
    "\n\n* {}", "\n# {}", "\n== {} ==\ntext", "\n{{|\n| gone\n|}}\n{}", "{{{{quote|{}}}}}", "<div>{}</div>",
    "\n{{{{Infobox|a={{{{b}}}}|c=[[gone]]}}}}\n{}",
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(WRAPPED), st.sampled_from([" ", "<br>", "<br/>", "\n"]))),
    st.lists(st.sampled_from(["{{", "[[", "{|", "''", "<div>"]), max_size=2),
)
def test_words_survive_and_are_never_glued(parts: list[tuple[str, str]], open_: list[str]) -> None:
    pieces = [wrap.format(f"w{i}") + end for i, (wrap, end) in enumerate(parts)]
    found = re.findall(r"w\d+|gone", clean_wikitext("".join([*pieces, " ", *open_, " end"])))
    words = [f"w{i}" for i in range(len(parts))]
    assert found == words
    text = clean_wikitext("".join(pieces) + " end")
    assert not re.search(r"w\d+w\d", text)


def test_tables_hold_no_entry_that_cannot_match(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [title for title in LINK_SECTIONS if clean_wikitext(f"== {title} ==\nx")] == []
    assert [name for name in NO_TEXT if clean_wikitext(f"[[{name}:a|b]]")] == []
    assert [name for name in DROPPED if "x" in clean_wikitext(f"<{name}>x</{name}>")] == []
    assert set(UNITS.values()) >= SINGULAR.keys()
    assert [unit for unit, shown in UNITS.items() if unit == shown] == []
    names = list(EXPANDERS)
    monkeypatch.setattr(wiki_templates, "EXPANDERS", dict.fromkeys(names, "found"))
    assert [name for name in names if expand_template(f"{name}|a") != "found"] == []


def test_namespaces_and_lists() -> None:
    assert clean_wikitext("[[Soubory:x]]a", NO_TEXT | {"soubory"}) == "a"
    pages = {
        "Ada (disambiguation)": "{{Disambiguation|geo}}",
        "List of towns": "",
        "Ada": "{{dpx}}",
    }
    found = [t for t, text in pages.items() if _is_list(WikiPage("1", text, NO_TEXT, t))]
    assert found == ["Ada (disambiguation)", "List of towns"]


@pytest.mark.parametrize(
    "mark", ["{{", "[[", "{|\n", "<ref>", "<!--", "[http://x ", "=", "''", "(", "<math", "}}]]"]
)
def test_many_unclosed_marks_do_not_stall_the_parser(mark: str) -> None:
    """Quadratic time would take minutes here."""
    assert isinstance(clean_wikitext(mark * 20_000), str)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("Le mot {{langue|de|Haus}} est connu.", "Le mot Haus est connu."),
        ("Он знал {{нп5|Джон|Джона|en|John}} давно.", "Он знал Джона давно."),
        ("Он — {{Нп3|Джон Смит||en|John}} и поэт.", "Он — Джон Смит и поэт."),
        ("Путь в {{num|1000|км}} пройден.", "Путь в 1000 км пройден."),
        ("Au {{s-|XIX}}, la ville grandit.", "Au XIXe siècle, la ville grandit."),
        (
            "Au {{s|XIX|e}}, le {{1er|mai}}, au {{XXe siècle}}.",
            "Au XIXe siècle, le 1er mai, au XXe siècle.",
        ),
        ("Le {{lang|en|texte=New Deal}} et {{Lien|fr=Foo|trad=Bar}}.", "Le New Deal et Foo."),
        (
            "文章{{Refnest|group=注|x}}が{{読み仮名|東|とう}}。次{{Efn2|x}}です。",
            "文章が東（とう）。次です。",
        ),
        ("他叫{{link-en|蘋果|Apple}}和{{tsl|en|Apple|蘋果}}公司。", "他叫蘋果和蘋果公司。"),
        (
            "東京（とうきょう、{{未知|x}}）は首都。（、{{要出典}}）彼（{{未知}}）だ。",
            "東京は首都。彼だ。",
        ),
        ("De stad{{onbekend|x}}, met {{Bron?|y}} water{{z}}. Klaar.", "De stad, met water. Klaar."),
        (
            "Fondée au {{-s-|III|e}} par {{souverain2|Louis XIV}}.",
            "Fondée au IIIe siècle par Louis XIV.",
        ),
        ("Город{{ref-en}} в {{км|5}}.", "Город в 5 км."),
        ("Москва ({{lang-en|Moscow}}) — город.", "Москва (Moscow) — город."),
        ("彼は{{仮リンク|ジョン|en|John}}と働いた。", "彼はジョンと働いた。"),
        ("Es heißt {{Unbekannt|x}} hier. Ein Satz.", "Ein Satz."),
        ("Он жил тут{{нет АИ|1|2|2020}}. Да.", "Он жил тут. Да."),
        ("Il vécut ici{{refnec}}. Oui.", "Il vécut ici. Oui."),
        ("彼は住んだ{{要出典|date=2020}}。はい。", "彼は住んだ。はい。"),
        ("Vivió aquí{{cita requerida}}. Sí.", "Vivió aquí. Sí."),
    ],
)
def test_templates_of_other_wikis(source: str, text: str) -> None:
    assert clean_wikitext(source) == text
