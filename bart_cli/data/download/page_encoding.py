"""Decode an HTML page as a browser does (WHATWG).

The encoding comes from the first of these that gives a known one: byte order mark, charset in the
HTTP header, `<meta>` or XML declaration, detection. An invalid byte becomes U+FFFD; the bytes
around it are decoded as if it were absent.
"""

from __future__ import annotations

import re
from collections import Counter

import webencodings

from bart_cli.data.text_files import EXTENDED, ISO_2022_JP, is_mostly_utf8

BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xfe\xff", "utf-16be"), (b"\xff\xfe", "utf-16le"))
# Browsers prescan 1,024 bytes, but restart the parser at a later declaration.
DECLARATION_WITHIN = 2**16
CHARSET = re.compile(r"charset\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s;,\"']+))", re.IGNORECASE)
XML = re.compile(rb"\s*<\?xml\s[^>]*?encoding\s*=\s*[\"']([^\"'>]+)[\"']")
# Every pattern also matches up to the end of the page, so that unclosed markup stays linear.
ATTRIBUTES = rb"(?:\s|/)(?:[^>\"']|\"[^\"]*(?:\"|\Z)|'[^']*(?:'|\Z))*"
MARKUP = re.compile(
    rb"<!--.*?(?:-->|\Z)|<(script|style|title|textarea)\b.*?(?:</\1|\Z)"
    rb"|<meta(" + ATTRIBUTES + rb")(?:>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
ATTRIBUTE = re.compile(
    rb"(?<![^\s/=>\"'])([^\s/=>\"']+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>\"']+))"
)
TAG = re.compile(rb"<(script|style)\b.*?(?:</\1\s*>|\Z)|<[^>]*(?:>|\Z)", re.IGNORECASE | re.DOTALL)


def decode(html: bytes, content_type: str = "") -> str:
    """Decode a page; `content_type` is the HTTP header, such as `text/html; charset=koi8-r`."""
    mark, name = next((bom for bom in BOMS if html.startswith(bom[0])), (b"", ""))
    encoding = webencodings.lookup(name) or webencodings.lookup(_charset(content_type))
    if encoding is None or (not mark and encoding.name.startswith("utf-16")):
        encoding = _declared(html) or _detected(html)  # also tells the byte order of UTF-16
    if encoding.name == "gbk":  # the standard decodes it as its superset
        encoding = webencodings.lookup("gb18030")
    text = encoding.codec_info.decode(html[len(mark) :], "replace")[0].replace("\0", "\ufffd")
    if encoding.name == "shift_jis":  # Python's codec maps four invalid bytes to characters
        text = re.sub("[\uf8f0-\uf8f3]", "\ufffd", text)
    return text


def _charset(content_type: str) -> str:
    found = CHARSET.search(content_type)
    return found[found.lastindex or 0] if found else ""


def _declared(html: bytes) -> webencodings.Encoding | None:
    """The encoding of the first `<meta>` or XML declaration with a known label."""
    head = html[:DECLARATION_WITHIN]
    labels = [found[1].decode("latin-1")] if (found := XML.match(head)) else []
    for tag in MARKUP.finditer(head):
        if tag[2] is None:
            continue
        attributes: dict[bytes, str] = {}
        for name, *values in ATTRIBUTE.findall(tag[2]):
            attributes.setdefault(name.lower(), b"".join(values).decode("latin-1"))
        if b"charset" in attributes:
            labels.append(attributes[b"charset"])
        elif attributes.get(b"http-equiv", "").strip().lower() == "content-type":
            labels.append(_charset(attributes.get(b"content", "")))
    for label in labels:
        encoding = webencodings.lookup(label)
        if encoding is None:
            continue
        # A page whose declaration is readable as ASCII is not UTF-16 (HTML standard, prescan).
        instead = {"utf-16le": "utf-8", "utf-16be": "utf-8", "x-user-defined": "windows-1252"}
        return webencodings.lookup(instead.get(encoding.name, encoding.name))
    return None


def _detected(html: bytes) -> webencodings.Encoding:
    from resiliparse.parse.encoding import detect_encoding

    head = html[:512].lstrip(b"\0 \t\r\n")
    if head[:4].count(0) == 2:  # UTF-16 without a byte order mark: ASCII has alternating zeros
        is_little = html[1::2][:256].count(0) > html[::2][:256].count(0)
        return webencodings.lookup("utf-16le" if is_little else "utf-16be")
    if ISO_2022_JP.search(html):
        return webencodings.lookup("iso-2022-jp")
    if is_mostly_utf8(html):
        return webencodings.UTF8
    # Markup is ASCII in every encoding and would outweigh the letters.
    text = TAG.sub(b" ", html)
    name: str = detect_encoding(text, html5_compatible=False) or ""
    if not name:  # an invalid byte excludes every encoding: let parts of the page vote
        size = max(64, len(text) // 8)
        parts = (text[i : i + size] for i in range(0, len(text), size))
        found = Counter(detect_encoding(part, html5_compatible=False) or "" for part in parts)
        name = max(found.keys() - {"", "ascii"}, key=found.__getitem__, default="")
    if re.search(rb"[\x80-\x9f]", text):
        name = EXTENDED.get(name, name)
    name = {"cp949": "euc-kr"}.get(name, name.replace("_", "-").replace("iso8859", "iso-8859"))
    return webencodings.lookup(name) or webencodings.lookup("windows-1252")
