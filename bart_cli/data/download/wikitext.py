"""Convert wikitext to running text, in linear time.

In: the source of an article. Out: its paragraphs and headings, one per line. `wiki_templates`
expands known templates. A sentence with an unknown template inside it is removed, since it would
have a gap. Tables, references, files and lists of links at the end are also removed.
"""

from __future__ import annotations

import html
import re
from collections import Counter

from bart_cli.data.download.wiki_templates import HOLE, LITERAL, expand_template
from bart_cli.data.sentences import spaced_sentences

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
# Titles of sections without running text, in large wikis; also combined, as in "Notes and sources".
LINK_SECTIONS = frozenset(
    "see also,references,notes,footnotes,external links,further reading,bibliography,sources,"
    "citations,works cited,cited works,explanatory notes,general references,selected bibliography,"
    "gallery,literature,discography,filmography,publications,"
    "siehe auch,einzelnachweise,weblinks,literatur,quellen,anmerkungen,fußnoten,"
    "voir aussi,références,liens externes,bibliographie,articles connexes,"
    "véase también,referencias,enlaces externos,bibliografía,notas,"
    "voci correlate,note,altri progetti,collegamenti esterni,bibliografia,"
    "ver também,referências,ligações externas,zie ook,externe links,referenties,literatuur,"
    "bronnen,noten,zobacz też,przypisy,linki zewnętrzne,uwagi,"
    "см. также,примечания,ссылки,литература,источники,див. також,примітки,посилання,література,"
    "джерела,se även,referenser,externa länkar,källor,související články,externí odkazy,literatura,"
    "ayrıca bakınız,kaynakça,dış bağlantılar,関連項目,脚注,外部リンク,参考文献,出典,注釈,"
    "参见,參見,参考资料,參考資料,參考文獻,外部链接,外部連結,注释,註釋,延伸阅读,延伸閱讀,"
    "같이 보기,각주,외부 링크,참고 문헌,انظر أيضا,انظر أيضًا,مراجع,المراجع,وصلات خارجية".split(",")
)
COMBINED = re.compile(r"\s*(?:[,/&]|\b(?:and|und|et|y|e|en|of|i|и|та|och)\b)\s*")
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
# Unknown templates on lines of their own, at the beginning (an infobox) or between sentences.
BOX = re.compile(rf"(?:\A|(?<=[.!?:=。\n])\n)\s*{HOLE}(?:\s*{HOLE})*[ \t]*(?=\n|\Z)")
# A line break within a paragraph.
WRAP = re.compile(r"(?<=[^\n=])\n(?=[^\n*#:;=|!{ \t-])")
# Variants of a word in Chinese and Serbian: `-{zh-cn:a; zh-tw:b}-`.
VARIANT = re.compile(r"-\{(?!\{)([^{}]*)\}-")
BLOCK = re.compile(rf"</?(?:{BLOCKS})(?:[\s/][^<>]*)?>", re.I)
TAG = re.compile(rf"</?(?:{INLINE})(?:[\s/][^<>]*)?>", re.I)
# A space before punctuation where a footnote was removed; not in ". . ." or "such as .com".
SPACED = re.compile(r"[ \t]+(?=\)|[,;](?:\s|$))|(?<=\w)[ \t]+(?=\.(?:\s+[^\s.]|\s*$))")
PLAIN = {private: code for code, private in LITERAL.items()}


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
    text = WRAP.sub(" ", BOX.sub("\n", text))
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
            content = expand_template(content)
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
    holes = rf"{HOLE}(?:\s*{HOLE})*"
    line = re.sub(rf"(?<=[^\s$£€¥]){holes}(?=[\s.,;:!?]|$)|(?<=[.!?])\s*{holes}\s*$", "", line)
    if HOLE not in line:
        return line
    line = line.replace(HOLE, f"X{HOLE}")  # a hole may begin a sentence, as a capital letter does
    return "".join(s for s in spaced_sentences(line) if HOLE not in s)


def _cut_link_sections(wikitext: str) -> str:
    """Remove sections that are lists of links or sources."""
    kept, skipping = [], 0
    for line in wikitext.splitlines():
        if heading := _heading(line):
            level, title = heading
            if skipping and level <= skipping:
                skipping = 0
            names = [name for name in COMBINED.split(title.lower()) if name]
            if not skipping and LINK_SECTIONS.issuperset(names or [title]):
                skipping = level
        if not skipping:
            kept.append(line)
    return "\n".join(kept)
