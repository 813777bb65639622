"""Decode an HTML page as a browser does (WHATWG).

The encoding comes from the first of these that gives a known one: byte order mark, charset in the
HTTP header, `<meta>` or XML declaration, detection. An invalid byte becomes U+FFFD; the bytes
around it are decoded as if it were absent.
"""

from __future__ import annotations

import re

import webencodings

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
TOLERATED = 0.3  # maximum ratio of invalid bytes to non-ASCII characters in UTF-8


def decode(html: bytes, content_type: str = "") -> str:
    """Decode a page; `content_type` is the HTTP header, such as `text/html; charset=koi8-r`."""
    mark, name = next((bom for bom in BOMS if html.startswith(bom[0])), (b"", ""))
    known = webencodings.lookup(name) or webencodings.lookup(_charset(content_type))
    encoding = known or _declared(html) or _detected(html)
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
        return webencodings.lookup("utf-16le" if html[1::2][:256].count(0) else "utf-16be")
    text = html.decode("utf-8", "replace")
    wide = len(text) - len(text.encode("ascii", "ignore"))
    if text.count("\ufffd") <= wide * TOLERATED:
        return webencodings.UTF8
    # Markup is ASCII in every encoding and would outweigh the letters.
    label = detect_encoding(TAG.sub(b" ", html), html5_compatible=False)
    name = {"cp949": "euc-kr"}.get(label or "", (label or "").replace("_", "-"))
    return webencodings.lookup(name) or webencodings.lookup("windows-1252")
