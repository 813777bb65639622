"""Convert wikitext to running text, in linear time.

In: the source of an article. Out: its paragraphs and headings, one per line. Known templates are
expanded (`EXPANDERS`). A sentence with an unknown template inside it is removed, since it would
have a gap. Tables, references, files and lists of links at the end are also removed.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable

from bart_cli.data.sentences import split_sentences

# Names of the namespaces File, Media and Category in English and other large wikis.
NO_TEXT = frozenset(
    "file image media category datei bild kategorie fichier catégorie archivo imagen categoría "
    "ficheiro imagem categoria immagine bestand afbeelding categorie plik grafika kategoria файл "
    "изображение категория зображення категорія fil kategori tiedosto kuva luokka soubor kategorie "
    "súbor obrázok kategória fájl kép kategória fișier imagine dosya resim αρχείο εικόνα κατηγορία "
    "קובץ תמונה קטגוריה ملف صورة تصنيف پرونده رده चित्र श्रेणी ไฟล์ ภาพ หมวดหมู่ "
    "berkas gambar ファイル 画像 カテゴリ 文件 檔案 图像 圖像 分类 分類 파일 그림 분류 "
    "datoteka slika kategorija датотека слика категорија fitxer imatge fitxategi irudi média "
    "médias".split()
) | {"tập tin", "hình ảnh", "thể loại"}
# Titles of sections without running text, in large wikis.
LINK_SECTIONS = frozenset(
    "see also,references,notes,footnotes,external links,further reading,bibliography,sources,"
    "citations,works cited,notes and references,gallery,references and notes,literature,"
    "discography,filmography,publications,"
    "siehe auch,einzelnachweise,weblinks,literatur,quellen,anmerkungen,fußnoten,"
    "einzelnachweise und anmerkungen,anmerkungen und einzelnachweise,"
    "voir aussi,notes et références,références,liens externes,bibliographie,articles connexes,"
    "véase también,referencias,enlaces externos,bibliografía,notas,notas y referencias,"
    "voci correlate,note,altri progetti,collegamenti esterni,bibliografia,"
    "ver também,referências,ligações externas,zie ook,externe links,referenties,literatuur,"
    "bronnen, noten en/of referenties,zobacz też,przypisy,linki zewnętrzne,uwagi,"
    "см. также,примечания,ссылки,литература,источники,див. також,примітки,посилання,література,"
    "джерела,se även,referenser,externa länkar,källor,související články,externí odkazy,literatura,"
    "ayrıca bakınız,kaynakça,dış bağlantılar,関連項目,脚注,外部リンク,参考文献,出典,注釈,"
    "参见,參見,参考资料,參考資料,參考文獻,外部链接,外部連結,注释,註釋,延伸阅读,延伸閱讀,"
    "같이 보기,각주,외부 링크,참고 문헌,انظر أيضا,انظر أيضًا,مراجع,المراجع,وصلات خارجية".split(",")
)
# Elements without running text. Those in HOLES leave a hole in their sentence.
HOLES = ("math", "chem", "ce", "hiero", "syntaxhighlight", "source")
DROPPED = (
    *HOLES, "ref", "references", "table", "gallery", "timeline", "imagemap", "score", "pre",
    "graph", "mapframe", "maplink", "includeonly", "templatestyles", "rp", "rt",
)  # fmt: skip
BLOCKS = (
    "br|p|div|blockquote|center|li|ul|ol|dl|dt|dd|hr|tr|td|th|caption|h[1-6]|poem|section|tbody"
)
INLINE = (
    "b|i|u|s|em|strong|span|small|big|sup|sub|code|tt|font|abbr|cite|var|kbd|samp|del|ins|mark|q|"
    "bdi|bdo|ruby|rb|time|data|noinclude|onlyinclude|strike|wbr|nowiki|dfn|a|img|table|ref|math"
)
# Templates that mark disambiguation pages, and beginnings of the titles of lists, in large wikis.
LIST_PAGE = re.compile(
    r"\{\{\s*(?:disamb\w*|[\w ]+disambiguation|hndis|geodis|mil-unit-dis|surname|given name|"
    r"set index article|sia|begriffsklärung|homonymie|desambiguaci[óo]n|desambiguação|disambigua|"
    r"dp|ujednoznacznienie|неоднозначность|неоднозначність|aimai|曖昧さ回避|消歧义|消歧義)\s*[|}]",
    re.I,
)
LIST_TITLE = re.compile(
    r"lists? of |index of |outline of |liste? (?:der|von|des|de|d')|lista (?:de|di)|"
    r"anexo:|lijst van|список |.+一覧$",
    re.I,
)
COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
PARAMETER = re.compile(r"\{\{\{[^{}|]*\|?([^{}]*)\}\}\}")
ELEMENT = re.compile(rf"<(/?)({'|'.join(DROPPED)}|nowiki)(?=[\s/>])([^<>]*)>", re.I)
MARK = re.compile(r"\{\{|\}\}|\[\[|\]\]|^[ \t:]*\{\||^[ \t]*\|\}(?!\})", re.M)
CLOSING = {"}}": "{{", "]]": "[[", "|}": "{|"}
ADDRESS = re.compile(r"\[(?:(?:https?|ftp):|mailto:|//)[^\s\[\]]*[ \t]*([^\[\]\n]*)\]", re.I)
POWER = re.compile(r"(?<=\d)<sup(?:\s[^<>]*)?>(?=[-\u2212\d])", re.I)
# A line break within a paragraph.
WRAP = re.compile(r"(?<=[^\n=])\n(?=[^\n*#:;=|!{ \t-])")
# Variants of a word in Chinese and Serbian: `-{zh-cn:a; zh-tw:b}-`.
VARIANT = re.compile(r"-\{(?!\{)([^{}]*)\}-")
BLOCK = re.compile(rf"</?(?:{BLOCKS})(?:[\s/][^<>]*)?>", re.I)
TAG = re.compile(rf"</?(?:{INLINE})(?:[\s/][^<>]*)?>", re.I)
# A space before punctuation where a footnote was removed; not in ". . ." or "such as .com".
SPACED = re.compile(r"[ \t]+(?=\)|[,;](?:\s|$))|(?<=\w)[ \t]+(?=\.(?:\s+[^\s.]|\s*$))")
ARGUMENT = re.compile(r"\s*([\w .-]+?)\s*=(.*)", re.S)
# Private-use characters that stand for a hole, and for markup that is text (`<nowiki>`).
HOLE = "\U000f0000"
LITERAL = {ord(c): 0xF0000 + ord(c) for c in "{}[]|<>'=*#:;!_&"}
PLAIN = {private: code for code, private in LITERAL.items()}

NO_CONTENT = re.compile(
    r"(?:cite|citation|sfn\w*|harv\w*|#tag:ref|efn\w*|notetag|refn?|refnest|ref-\w+|r|rp|note|notelist|fact|cn|who|when|where|which|clarify|"
    r"dubious|by whom|according to whom|verify|failed|page needed|better source|vague|full|main|"
    r"see|further|details\d?|about|for|other|distinguish|redirect|hatnote|infobox|taxobox|automatic|geobox|use|"
    r"short description|portal|commons|wiktionary|wikisource|sister|authority|default|reflist|"
    r"clear|-|toc|anchor|ipa|ipac|pron|respell|listen|increase|decrease|steady|nav|succession|s-|col|div|multicol|"
    r"multiple|(?:\w+ )?image|css image crop|gallery|quote box|update|"
    r"pp|protect|unreferenced|refimprove|more|pov|expand|stub|"
    r"disambig|hndis|geodis|dead|webarchive|isbn|doi|issn|oclc|dn|lead|"
    r"defaultsort|displaytitle|sortierung|seitentitel|clé de tri|titre mis en forme|ordenar|"
    r"titulo|сортировка|デフォルトソート|cleanup|featured|good|"
    r"belege|refnec|référence nécessaire|réf\.? nécessaire|source insuffisante|quand|qui|où|"
    r"нет аи|кто|где|когда|что|уточнить|cita requerida|carece de fontes|senza fonte|bron\??|"
    r"要出典|誰|いつ|どこ|要検証|要説明|来源请求|來源請求|fakt|출처|джерело|källa|"
    r"بحاجة لمصدر)"
    r"(?:[\s\-:|].*)?|.*[ -](?:stub|inline|needed)|\w\w icon",
    re.I | re.S,
)
MONTHS = (
    "January February March April May June July August September October November December".split()
)
RANGES = {"to": " to ", "-": "\u2013", "\u2013": "\u2013", "and": " and ", "or": " or ",
          "x": " \u00d7 ", "by": " by ", "+/-": " \u00b1 ", "to(-)": " to ",
          "xx": " \u00d7 "}  # fmt: skip
UNITS = {"sqmi": "sq mi", "sqft": "sq ft", "C": "\u00b0C", "F": "\u00b0F", "km2": "km\u00b2",
         "m2": "m\u00b2", "m3": "m\u00b3", "km3": "km\u00b3", "kph": "km/h", "km/h": "km/h",
         "mi": "miles", "acre": "acres", "t": "tonnes", "MT": "tonnes", "long ton": "long tons",
         "impgal": "imperial gallons", "USgal": "US gallons", "cuft": "cu ft",
         "nmi": "nautical miles", "oilbbl": "barrels", "koilbbl": "thousand barrels",
         "Moilbbl": "million barrels", "oilbbl/d": "barrels per day",
         "koilbbl/d": "thousand barrels per day", "foot": "feet", "ft2": "sq ft",
         "sqkm": "km\u00b2", "cuyd": "cu yd", "LT": "long tons", "ST": "short tons",
         "ozt": "troy oz", "C-change": "\u00b0C", "F-change": "\u00b0F", "lb-f": "lbf"}  # fmt: skip
# Words among the units; as adjectives they are joined to their number by a hyphen.
SINGULAR = {"feet": "foot", "miles": "mile", "nautical miles": "nautical mile", "acres": "acre",
            "tonnes": "tonne", "long tons": "long ton", "short tons": "short ton",
            "barrels": "barrel", "US gallons": "US gallon",
            "imperial gallons": "imperial gallon"}  # fmt: skip
THOUSANDS = {"3": "thousand", "6": "million", "9": "billion", "12": "trillion"}
# Templates named after the prefix of a ship's name.
SHIPS = "uss hms hmas hmcs hmnzs hmt rms ss ms mv sms rfa uscgc ins usns jds rv"
MUSIC = {"flat": "\u266d", "b": "\u266d", "sharp": "\u266f", "natural": "\u266e"}
Given = list[str]  # positional arguments of a template
Named = dict[str, str]
FUNCTIONS = ("formatnum:", "lc:", "uc:", "ucfirst:", "lcfirst:", "nowrap:")


def clean_wikitext(wikitext: str, no_text: frozenset[str] = NO_TEXT) -> str:
    """Return the running text of an article: paragraphs and headings, without markup.

    Links to the namespaces `no_text` (lower case) are not running text.
    """
    text = COMMENT.sub("", wikitext.translate(dict.fromkeys(PLAIN)))
    text = PARAMETER.sub(r"\1", text)
    text = VARIANT.sub(_variant, text)
    text = _expand(_elements(_cut_link_sections(text)), no_text)
    text = ADDRESS.sub(r"\1", text)
    text = TAG.sub("", BLOCK.sub("\n\n", POWER.sub("^", text)))
    text = WRAP.sub(" ", text)
    lines: list[str] = []
    headings: list[tuple[int, str]] = []  # pending headings, written only if text follows
    for raw in text.split("\n"):
        heading = _heading(raw)
        line = html.unescape(_line(heading[1] if heading else raw)).translate(PLAIN)
        line = " ".join(line.replace("\u200b", "").split())
        if heading and line:
            while headings and headings[-1][0] >= heading[0]:
                headings.pop()
            headings.append((heading[0], line if line[-1] in ".!?:\u3002" else f"{line}."))
        elif line:
            lines += [title for _, title in headings]
            headings.clear()
            lines.append(line)
    return "\n".join(lines)


def _variant(found: re.Match[str]) -> str:
    """The first variant of a word, without flags and language codes."""
    flags, _, text = found[1].rpartition("|")
    if flags.strip() in ("T", "H", "-"):
        return ""  # the title of the page, or a rule for other words
    return re.sub(r"^\s*[a-z-]+:", "", text.partition(";")[0]).strip()


def _elements(text: str) -> str:
    """Remove elements without running text, and escape the content of `<nowiki>`."""
    tags = list(ELEMENT.finditer(text))
    last_close = {tag[2].lower(): tag.start() for tag in tags if tag[1]}
    pieces: list[str] = []
    position, inside = 0, ""
    for tag in tags:
        name = tag[2].lower()
        if inside:
            if not tag[1] or name != inside or tag[3].strip():
                continue
            content = text[position : tag.start()]
            pieces.append(content.translate(LITERAL) if inside == "nowiki" else "")
            if inside in HOLES:
                pieces.append(HOLE)
            elif inside == "ref" and text[tag.end() : tag.end() + 1].isalnum():
                pieces.append(" ")
            inside = ""
        else:
            pieces.append(text[position : tag.start()])
            whole = tag[1] or tag[3].endswith("/")
            if name == "ref" and whole and text[tag.end() : tag.end() + 1].isalnum():
                pieces.append(" ")
            if not whole and last_close.get(name, -1) > tag.start():
                inside = name
        position = tag.end()
    return "".join([*pieces, text[position:]])


def _expand(text: str, no_text: frozenset[str]) -> str:
    """Resolve templates, links and tables from the inside out. Unclosed ones remain as text."""
    stack: list[tuple[str, list[str]]] = [("", [])]
    opened: Counter[str] = Counter()
    position = 0
    for found in MARK.finditer(text):
        mark = found[0].strip(" \t:")
        stack[-1][1].append(text[position : found.start()])
        position = found.end()
        if mark in CLOSING.values():
            stack.append((mark, []))
            opened[mark] += 1
            continue
        if not opened[CLOSING[mark]]:
            continue
        while True:
            kind, pieces = stack.pop()
            opened[kind] -= 1
            content = "".join(pieces)
            if kind == CLOSING[mark]:
                break
            stack[-1][1].append(content)
        if kind == "{{":
            content = _template(content)
        else:
            content = _link(content, no_text) if kind == "[[" else "\n"
        stack[-1][1].append(content)
    stack[-1][1].append(text[position:])
    while len(stack) > 1:
        kind, pieces = stack.pop()
        content = "".join(pieces)
        if kind == "{|":
            rows = content.split("\n")[1:]
            content = "\n".join(row for row in rows if row.lstrip()[:1] not in ("|", "!"))
        stack[-1][1].append(content)
    return "".join(stack[0][1])


def _link(content: str, no_text: frozenset[str]) -> str:
    target, pipe, label = content.partition("|")
    if "\n" in target:
        return content  # unrelated brackets
    shown = target.strip().removeprefix(":")
    prefix, colon, _ = target.replace("_", " ").partition(":")
    prefix = prefix.strip().lower()
    other_language = not pipe and re.fullmatch(r"[a-z]{2,3}(?:-[a-z]+)*", prefix)
    if colon and prefix and (prefix in no_text or other_language):
        return ""
    if not pipe:
        return shown
    name = re.sub(r"\s*\([^()]*\)$", "", shown.partition(":")[2] or shown)
    return label if label.strip() else name


def _template(content: str) -> str:
    head, *rest = content.split("|")
    name = " ".join(head.replace("_", " ").split()).lower()
    if name.startswith(FUNCTIONS):
        return head.partition(":")[2].strip()
    given: list[str] = []
    named: dict[str, str] = {}
    for part in rest:
        if found := ARGUMENT.fullmatch(part):
            named[found[1]] = found[2].strip()
        else:
            given.append(part.strip())
    for key in sorted((k for k in named if k.isdecimal() and len(k) < 3), key=int):
        given.insert(int(key) - 1, named[key])
    if name.startswith("#if:"):
        return _if(given, named, head.partition(":")[2].strip())
    if re.fullmatch(r"\d+(?:er|re|e|ème|d)s?|-?[ivx]+er?e? siècle", name):
        return " ".join([head.strip(), *given])
    if name in SHIPS.split() and given:
        return f"{name.upper()} {given[0]}"
    expand = EXPANDERS.get(name)
    if expand is None and re.fullmatch(r"lang-[\w-]+|langx|llang|link-\w\w|script/.+", name):
        expand = {"langx": _last, "llang": _last}.get(
            name, _third if name.startswith("link-") else _first
        )
    if expand is None:
        return "" if NO_CONTENT.fullmatch(name) else HOLE
    try:
        if isinstance(expand, str):
            return expand.format(*given, first=_first(given, named), all=_all(given, named))
        return expand(given, named)
    except (IndexError, KeyError, ValueError):
        return HOLE


def _first(given: Given, named: Named) -> str:
    return given[0] if given else named.get("text", HOLE)


def _last(given: Given, named: Named) -> str:
    return named.get("texte") or named.get("text") or given[-1]


def _third(given: Given, named: Named) -> str:
    return given[2] if given[2:] else given[0]


def _century(given: Given, named: Named) -> str:
    if not re.fullmatch("[IVX]+", given[0]):
        return given[0]  # {{s}} of other wikis: struck out
    return f"{given[0]}{given[1] if given[1:] else 'e'} siècle"


def _sic(given: Given, named: Named) -> str:
    return "" if given[:1] in (["!"], ["?"]) else "".join(given[:2])


def _height(given: Given, named: Named) -> str:
    units = [unit for unit in ("m", "cm", "ft", "in") if unit in named]
    return " ".join(f"{named[unit]} {unit}" for unit in units) or HOLE


def _if(given: Given, named: Named, condition: str) -> str:
    return "".join(given[:1] if condition else given[1:2])


def _ipa(given: Given, named: Named) -> str:
    return f"[{given[1]}]" if re.fullmatch(r"[a-z]{2,3}", given[0]) and given[1:] else given[0]


def _all(given: Given, named: Named) -> str:
    return ", ".join(filter(None, given))


def _nihongo(given: Given, named: Named) -> str:
    shown, *others = given
    added = _all(others[:2], named)
    return f"{shown} ({added})" if shown and added else shown or added


def _unit(name: str) -> str:
    """A unit as readers know it: `e6m3` is million m³."""
    power = re.match(r"e(3|6|9|12)(?=\D)", name)
    if power is None:
        return UNITS.get(name, name)
    return f"{THOUSANDS[power[1]]} {_unit(name[power.end() :])}"


def _convert(given: Given, named: Named) -> str:
    text = re.sub(r"(?<=\d)\+(?=\d)", " ", given[0])  # 2+1/2
    adjective = named.get("adj", "").startswith(("on", "mid", "pre")) or "adj1" in named
    expects_unit, index = True, 1
    while index < len(given):
        word = given[index]
        if expects_unit and word in RANGES:
            text += RANGES[word] + given[index + 1]
            index += 2
            continue
        if not expects_unit:
            break
        unit = _unit(word)
        if adjective or text.lstrip("-\u2212") == "1":
            unit = SINGULAR.get(unit, unit)
        is_word = unit in SINGULAR.values() and adjective
        text += f"-{unit}" if is_word else f" {unit}"
        # Feet and inches: a number and its unit follow.
        index += 1
        feet = word in ("ft", "st", "lb", "mi", "yd") and index + 1 < len(given)
        if (
            feet
            and re.fullmatch(r"[\d.,/+]+", given[index])
            and not re.fullmatch(r"[\d.-]+", given[index + 1])
        ):
            text += f" {given[index]}"
            index += 1
        else:
            expects_unit = False
    if named.get("adj") == "mid" and given[index:]:
        text += given[-1]
    return text


def _date(given: Given, named: Named) -> str:
    numbers = [value for value in given if value]
    if len(numbers) > 1 and numbers[1][0].isalpha():
        return " ".join(numbers[:3])  # French: day, month in words, year
    if not re.fullmatch(r"\d{1,4}", numbers[0]):
        return numbers[0]  # a date in words
    if len(numbers) < 2 or not re.fullmatch(r"0?[1-9]|1[0-2]", numbers[1]):
        return numbers[0]
    month = MONTHS[int(numbers[1]) - 1]
    if len(numbers) < 3:
        return f"{month} {numbers[0]}"
    day = int(numbers[2])
    if named.get("df", "").startswith("y"):
        return f"{day} {month} {numbers[0]}"
    return f"{month} {day}, {numbers[0]}"


def _as_of(given: Given, named: Named) -> str:
    if "alt" in named:
        return named["alt"]
    word = "Since" if named.get("since") else "As of"
    word = word.lower() if named.get("lc") else word
    if len(given) > 1 and not given[1].isdecimal():
        return f"{word} {' '.join(reversed(given[:3]))}"
    return f"{word} {_date(given, {'df': 'y'})}"


def _fraction(given: Given, named: Named) -> str:
    *whole, above, below = ["1", *given] if len(given) == 1 else given
    return " ".join(["", *whole, f"{above}/{below}"])  # may follow a number


def _value(given: Given, named: Named) -> str:
    if given[1:2] == ["-"]:
        given = [f"{given[0]}\u2013{given[2]}"]
    text = given[0] + (f" \u00b1 {given[1]}" if len(given) > 1 else "")
    text += f" \u00d7 10^{named['e']}" if "e" in named else ""
    unit = named.get("u", named.get("ul", ""))
    return named.get("p", "") + text + (f" {unit}" if unit else "")


# Names of templates, and a function of their arguments or a format string for them.
EXPANSIONS: tuple[tuple[str, str | Callable[[Given, Named], str]], ...] = (
    ("nowrap,nobr,small,smaller,big,larger,sup,sub,abbr,tooltip,em,strong,bold,italic,"
     "linktext,mvar,var,math,smallcaps,sc,not a typo,typo,proper name,"
     "nobold,noitalic,keypress,key,code,tt,mono,unicode,pre,nastaliq,center,longitem,"
     "railgauge,track gauge,j,нобр,langi,юникод,仮リンク,interlanguage link multi,"
     "citation bloc,texte,polytonic,hebrew,rtl-lang,"
     "visible anchor,nowiki,plain link,sronly,ill,interlanguage link,illm,wikt-lang,uss,"
     "player,lcfirst,ucfirst,visible,no wrap,allow wrap,red,"
     "underline,strikethrough,vanchor,text,flag,flagcountry,flagu,flagdeco,flag country,"
     "abbrlink,formatprice,format price,citation needed span,cns,clarify span,char,kbd,samp,"
     "overline,large,flagathlete,flagmedalist,nft,fb,nfly,nfl year,mlby,mlb year,baseball year,"
     "avoid wrap,as written,souverain,souverain2,souverain-,citation étrangère,"
     "tutto attaccato,liczba,국기나라,stn,stnlnk,refsou,comment,флагификация,esd,versalita,nwrap,"
     "要出典範囲,要検証範囲,ルビ,국기", _first),
    ("resize,script,native name,tsl,w języku,sort,hs,wict,link,wikt,"
     "lang,langue,transl,transliteration,translit,color,colored text,font color,rtl,zh", _last),
    ("le,internal link helper", _third),
    ("lien", lambda given, named: named.get("texte") or named.get("fr") or given[0]),
    ("s,s-,siècle,s2-,-s,-s-", _century),
    ("siglo", "siglo {0}"),
    ("séc,século", "século {0}"),
    ("n°,numéro,no", lambda given, named: " ".join(["n°", *given[:1]])),
    ("mme", "Mme {all}"),
    ("mlle", "Mlle {all}"),
    ("av jc,av. j.-c.", "av. J.-C."),
    ("heure", lambda given, named: " h ".join(given[:2])),
    ("höhe,hoehe", "{0} m"),
    ("§", "§ {0}"),
    ("км", "{0} км"),
    ("fmtn", lambda given, named: " ".join(given[:2])),
    ("m", lambda given, named: f"{given[0]} {named.get('ul') or named.get('u') or given[2]}"),
    ("読み仮名", "{0}（{1}）"),
    ("née,nee", lambda given, named: " ".join(["née", *given[:1]])),
    ("né", lambda given, named: " ".join(["né", *given[:1]])),
    ("post-nominals,postnominals,post-nom", lambda given, named: " ".join(given)),
    ("sic", _sic),
    ("okina,ʻokina", "\u02bb"),
    ("pi", "\u03c0"),
    ("mu", "\u03bc"),
    ("sqrt,radic", "\u221a{0}"),
    ("10^", "10^{0}"),
    ("gaps", lambda given, named: " ".join(given)),
    ("nuclide,nuclide2,simplenuclide,simplenuclide2", "{0}-{1}"),
    ("co2", "CO2"),
    ("height", _height),
    ("rws", "{0} railway station"),
    ("us patent", "U.S. patent {0}"),
    ("bibleref,bibleref2,bibleverse", lambda given, named: " ".join(filter(None, given[:2]))),
    ("oldstyledate", lambda given, named: " ".join(given[:2])),
    ("ipaslink,ipalink,ipablink", "/{0}/"),
    ("columns-list,columns list", lambda given, named: f"\n{given[-1]}\n"),
    ("ordered list,bulleted list,unordered list",
     lambda given, named: "\n" + "\n".join(given) + "\n"),
    ("wj,zwj,zwnj,shy,soft hyphen,nowrap begin,nowrap end,eqm", ""),
    ("¥,jp¥,jpy", "\u00a5{0}"),
    ("a$,au$,aud", "A${0}"),
    ("c$,ca$,cad", "C${0}"),
    ("nz$,nzd", "NZ${0}"),
    ("hk$,hkd", "HK${0}"),
    ("php,philippine peso,\u20b1", "\u20b1{0}"),
    ("нп,нп1,нп2,нп3,нп4,нп5,не переведено,не переведено 2,не переведено 3,"
     "не переведено 4,не переведено 5,не перекладено",
     lambda given, named: "".join(given[1:2]) or given[0]),
    ("audio,pronunciation", "{1}"),
    ("ipa,api,afi,api-fr", _ipa),
    ("coord,coordonnées",
     lambda given, named: "" if named.get("display") in ("title", "t") else HOLE),
    ("citation", lambda given, named: given[0] if given else ""),
    ("angbr,angle bracket,angbr ipa,grapheme", "\u27e8{first}\u27e9"),
    ("chem,chem2", lambda given, named: "".join(given)),
    ("e", " \u00d7 10^{0}"),
    ("pow", "{0}^{1}"),
    ("ad,ce", "AD {0}"),
    ("bc,bce", "{0} BC"),
    ("unité,unité/2,nombre,unidad,nb,число,num", lambda given, named: " ".join(given[:2])),
    ("music", lambda given, named: MUSIC[given[0]]),
    ('"', "„{first}“"),
    ("' \",'\"", "'\""),
    ("\" ',\"'", "\"'"),
    ("-\"", '"'),
    ("quote,blockquote,cquote,quotation,bquote,poemquote,poem quote,verse translation,"
     "rquote,block quote,verse,cita,zitat,citat,citaat,citazione,cytat,цитата", "\n{first}\n"),
    ("nihongo,nihongo foot,nihongo2,nihongo3,nihongo krt,korean,chinese", _nihongo),
    ("convert,cvt,conv", _convert),
    ("birth date,death date,birth date and age,death date and age,start date,end date,"
     "bda,dda,dob,start date and age,birth year and age,death year and age,film date,"
     "birth-date,death-date,birth-date and age,death-date and age,"
     "release date,launch date,dts,date,date-,start-date,end-date", _date),
    ("as of,asof", _as_of),
    ("frac,fraction,sfrac,sfraction", _fraction),
    ("val", _value),
    ("circa,ca,c.", lambda given, named: " \u2013 ".join(f"c. {year}" for year in given) or "c."),
    ("floruit,fl.", "fl. {all}"),
    ("reign,r.", lambda given, named: f"r. {chr(0x2013).join(given)}"),
    ("flagicon,flag icon", ""),
    ("nbsp,space,spaces,,thin space,thinsp,hair space,zwsp,pad,0", " "),
    ("dash,snd,spnd,snds,spaced ndash,spaced en dash,spndash", " \u2013 "),
    ("ndash,en dash,\u2013", "\u2013"),
    ("mdashb", " \u2014 "),
    ("mdash,em dash,\u2014", "\u2014"),
    ("',apostrophe", "'".translate(LITERAL)),
    ("'s", "'".translate(LITERAL) + "s"),
    ("!", "|".translate(LITERAL)),
    ("=", "=".translate(LITERAL)),
    ("\u00b7,\u2022,bull,dot,middot,bullet", " \u00b7 "),
    ("ubl,unbulleted list,plainlist,plain list,hlist,flatlist,flat list", _all),
    ("number sign,hash", "#".translate(LITERAL)),
    ("us$,usd", "US${0}"),
    ("ship", lambda given, named: " ".join(given[:2])),
    ("sclass,sclass2", "{0}-class {1}"),
    ("inr,indian rupee", "\u20b9{all}"),
    ("gbp,\u00a3,pound sign", "\u00a3{all}"),
    ("eur,euro,\u20ac", "\u20ac{all}"),
    ("h2o", "H2O"),
)  # fmt: skip
EXPANDERS = {name: expand for names, expand in EXPANSIONS for name in names.split(",")}


def _heading(line: str) -> tuple[int, str] | None:
    stripped = line.strip()
    before = len(stripped) - len(stripped.lstrip("="))
    after = len(stripped) - len(stripped.rstrip("="))
    level = min(before, after, 6)
    title = stripped[level:-level].strip()
    return (level, title) if title else None


def _line(line: str) -> str:
    """Remove bold and italic marks, list marks and holes from a line."""
    line = line.lstrip(" \t")
    line = line.lstrip("*#:;") if line[:1] in ("*", "#", ":", ";") else line
    if line.startswith("----"):
        line = line.lstrip("-")
    line = _without_quotes(line)
    line = re.sub(r"__[A-Z]{3,}__", "", line)
    if HOLE in line:
        line = _without_holes(line)
    if "(" in line or "（" in line:
        line = re.sub(r"([(（])[\s,;:，、；：]+", r"\1", line)
        line = re.sub(r"[,;:，、；：][\s,;:，、；：]*([)）])", r"\1", line)
        line = re.sub(r"[ \t]*(?:\(\)|（）)", "", line)
    return SPACED.sub("", line)


def _without_quotes(line: str) -> str:
    """Remove bold and italic marks by MediaWiki's rules.

    One mark of an unbalanced line contains an apostrophe: l'''Avare'' is l'Avare.
    """
    parts = re.split("('{2,})", line)
    sizes = {i: min(len(parts[i]), 3 if len(parts[i]) == 4 else 5) for i in range(1, len(parts), 2)}
    for i, size in sizes.items():
        parts[i] = parts[i][size:]
    bold = [i for i, size in sizes.items() if size == 3]
    wide = sum(size == 5 for size in sizes.values())
    if bold and (len(bold) + wide) % 2 and (len(sizes) - len(bold)) % 2:

        def rank(i: int) -> int:  # after a word of one letter, after another, after a space
            return 2 if parts[i - 1][-1:] == " " else parts[i - 1][-2:-1] != " "

        parts[min(bold, key=rank)] += "'"
    return "".join(parts)


def _without_holes(line: str) -> str:
    """Remove holes after a word or sentence (footnotes), and sentences with any other hole."""
    line = re.sub(rf"[(（][^()（）]*{HOLE}[^()（）]*[)）]", "", line)
    line = re.sub(rf"(?<=[^\s$£€¥]){HOLE}+(?=[\s.,;:!?]|$)|(?<=[.!?])\s*{HOLE}+\s*$", "", line)
    if HOLE not in line:
        return line
    return " ".join(s for s in split_sentences(line) if HOLE not in s)


def _cut_link_sections(wikitext: str) -> str:
    """Remove sections that are lists of links or sources."""
    kept, skipping = [], 0
    for line in wikitext.splitlines():
        if heading := _heading(line):
            level, title = heading
            if skipping and level <= skipping:
                skipping = 0
            if not skipping and title.lower() in LINK_SECTIONS:
                skipping = level
        if not skipping:
            kept.append(line)
    return "\n".join(kept)
