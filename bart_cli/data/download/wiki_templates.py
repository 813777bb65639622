"""Expand the templates of wikitext that stand for running text.

In: the content of a template, with its arguments already expanded. Out: its text, nothing for a
template without text, or HOLE. The names are those of Wikipedia in English and other languages.
"""

from __future__ import annotations

import re
from collections.abc import Callable

ARGUMENT = re.compile(r"\s*([\w .-]+?)\s*=(.*)", re.S)
# Private-use characters that stand for a hole, and for markup that is text (`<nowiki>`).
HOLE = "\U000f0000"
LITERAL = {ord(c): 0xF0000 + ord(c) for c in "{}[]|<>'=*#:;!_&"}

NO_CONTENT = re.compile(
    r"(?:cite|citation|sfn\w*|harv\w*|#tag:ref|efn\w*|notetag|refn?|refnest|r|rp|note|notelist|fact|cn|who|when|where|which|clarify|"
    r"dubious|by whom|according to whom|verify|failed|page needed|better source|vague|full|main|"
    r"see|further|details\d?|about|for|other|distinguish|redirect|hatnote|infobox|taxobox|automatic|geobox|use|"
    r"short description|portal|commons|wiktionary|wikisource|sister|authority|default|reflist|"
    r"clear|-|toc|anchor|ipa|ipac|pron|respell|listen|increase|decrease|steady|navbox(?:es)?|succession|s-\w+|col|div|multicol|"
    r"multiple|(?:\w+ )?image|gallery|quote box|update|"
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
         "m2": "m\u00b2", "m3": "m\u00b3", "km3": "km\u00b3", "kph": "km/h",
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
SHIPS = set("uss hms hmas hmcs hmnzs hmt rms ss ms mv sms rfa uscgc ins usns jds rv".split())
MUSIC = {"flat": "\u266d", "b": "\u266d", "sharp": "\u266f", "natural": "\u266e"}
Given = list[str]  # positional arguments of a template
Named = dict[str, str]
FUNCTIONS = ("formatnum:", "lc:", "uc:", "ucfirst:", "lcfirst:", "nowrap:")


def expand_template(content: str) -> str:
    """Return the text of a template, given what is between its braces."""
    head, *rest = content.split("|")
    name = " ".join(head.replace("_", " ").split()).lower()
    if name.startswith(FUNCTIONS):
        return head.partition(":")[2].strip()
    if choice := re.match("#(if|ifeq|switch):", name):
        value = head.partition(":")[2].strip()
        return _choose(choice[1], value, [part.strip() for part in rest] or [""])
    given: list[str] = []
    named: dict[str, str] = {}
    for part in rest:
        if found := ARGUMENT.fullmatch(part):
            named[found[1]] = found[2].strip()
        else:
            given.append(part.strip())
    for key in sorted((k for k in named if k.isdecimal() and len(k) < 3), key=int):
        given.insert(int(key) - 1, named[key])
    if re.fullmatch(r"\d+(?:er|re|e|ème|d)s?|-?[ivx]+er?e? siècle", name):
        return " ".join([head.strip(), *given])
    if name in SHIPS and given:
        return f"{name.upper()} {given[0]}"
    expand = EXPANDERS.get(name)
    if expand is None and re.fullmatch(r"lang-[\w-]+|link-\w\w|script/.+", name):
        expand = _third if name.startswith("link-") else _first
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


def _choose(function: str, value: str, cases: Given) -> str:
    """The text of `#if`, `#ifeq` or `#switch`; HOLE if it depends on an unknown template."""
    if function == "if":
        return "".join(cases[:1] if value else cases[1:2])
    if HOLE in value + cases[0]:
        return HOLE
    if function == "ifeq":
        return "".join(cases[1:2] if _equal(value, cases[0]) else cases[2:3])
    found = is_default = False  # a case without text has that of the next one
    default = ""
    for case in cases:
        key, has_text, text = (part.strip() for part in case.partition("="))
        found = found or _equal(key, value)
        is_default = is_default or key == "#default"
        if has_text and found:
            return text
        if has_text and is_default:
            default, is_default = text, False
    return default if "=" in cases[-1] else cases[-1]


def _equal(one: str, other: str) -> bool:
    """Compare as MediaWiki does: numbers by value."""
    are_numbers = one.isdecimal() and other.isdecimal()
    return one == other or (are_numbers and one.lstrip("0") == other.lstrip("0"))


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
    if re.fullmatch(r"\d{4}-\d\d?-\d\d?", numbers[0]):
        return _date(numbers[0].split("-"), {"df": "y"})
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
     "railgauge,track gauge,j,нобр,langi,юникод,仮リンク,"
     "citation bloc,texte,polytonic,hebrew,rtl-lang,"
     "visible anchor,nowiki,plain link,sronly,wikt-lang,"
     "player,lcfirst,ucfirst,visible,no wrap,allow wrap,red,"
     "underline,strikethrough,vanchor,text,flag,flagcountry,flagu,flagdeco,flag country,"
     "abbrlink,formatprice,format price,citation needed span,cns,clarify span,char,kbd,samp,"
     "overline,large,flagathlete,flagmedalist,nft,fb,nfly,nfl year,mlby,mlb year,baseball year,"
     "avoid wrap,as written,souverain,souverain2,souverain-,citation étrangère,"
     "tutto attaccato,liczba,국기나라,stn,stnlnk,refsou,comment,флагификация,esd,versalita,nwrap,"
     "要出典範囲,要検証範囲,ルビ,ruby,국기", _first),
    ("resize,script,native name,tsl,w języku,sort,hs,wict,link,wikt,"
     "lang,langx,llang,langue,transl,transliteration,translit,color,colored text,font color,"
     "rtl,zh", _last),
    ("ill,interlanguage link,illm,interlanguage link multi",
     lambda given, named: named.get("lt") or given[0]),
    ("no.", "No. {0}"),
    ("le,internal link helper", _third),
    ("lien", lambda given, named: named.get("texte") or named.get("fr") or given[0]),
    ("s,s-,siècle,s2-,-s,-s-", _century),
    ("siglo", "siglo {0}"),
    ("séc,século", "século {0}"),
    ("n°,numéro,no", lambda given, named: " ".join(["n°", *given[:1]])),
    ("mme", "Mme {all}"),
    ("mlle", "Mlle {all}"),
    ("m.", "M. {all}"),
    ("av jc,av. j.-c.", "av. J.-C."),
    ("heure", lambda given, named: " h ".join(given[:2])),
    ("höhe,hoehe", "{0} m"),
    ("§", "§ {0}"),
    ("км", "{0} км"),
    ("m", lambda given, named: f"{given[0]} {named.get('ul') or named.get('u') or given[2]}"),
    ("読み仮名", "{0}（{1}）"),
    ("née,nee", lambda given, named: " ".join(["née", *given[:1]])),
    ("né", lambda given, named: " ".join(["né", *given[:1]])),
    ("post-nominals,postnominals,post-nom,gaps", lambda given, named: " ".join(given)),
    ("sic", _sic),
    ("okina,ʻokina", "\u02bb"),
    ("pi", "\u03c0"),
    ("mu", "\u03bc"),
    ("sqrt,radic", "\u221a{0}"),
    ("10^", "10^{0}"),
    ("nuclide,nuclide2,simplenuclide,simplenuclide2", "{0}-{1}"),
    ("co2", "CO2"),
    ("height", _height),
    ("rws", "{0} railway station"),
    ("us patent", "U.S. patent {0}"),
    ("bibleref,bibleref2,bibleverse", lambda given, named: " ".join(filter(None, given[:2]))),
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
    ("unité,unité/2,nombre,unidad,nb,число,num,fmtn,oldstyledate,ship",
     lambda given, named: " ".join(given[:2])),
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
    ("sclass,sclass2", "{0}-class {1}"),
    ("inr,indian rupee", "\u20b9{all}"),
    ("gbp,\u00a3,pound sign", "\u00a3{all}"),
    ("eur,euro,\u20ac", "\u20ac{all}"),
    ("h2o", "H2O"),
)  # fmt: skip
EXPANDERS = {name: expand for names, expand in EXPANSIONS for name in names.split(",")}
