"""Names from anywhere, where they are drawn: they neither control the terminal nor put HTML into a page."""

import re
import unicodedata
from html import escape as escape_html

from rich.markup import escape

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$-])")
_DIRECTIONS = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # turn or end lines
LONGEST = 24  # characters of a name in a picture


def printable(text: str) -> str:
    r"""One line for a terminal: control characters, and those that turn the direction of text, are shown as codes.

    >>> printable("cat\x1b[2J\n")
    'cat\\x1b[2J\\n'
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Cs") or character in _DIRECTIONS
        else character
        for character in text
    )


def short(name: str, longest: int = LONGEST) -> str:
    """A name of one line, cut to so many characters, that leaves room for the picture.

    >>> short("a name of more than 24 characters")
    'a name of more than 24 …'
    """
    shown = printable(name)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def html(text: str) -> str:
    """One line of HTML that shows the text as it is, between tags and as a value in quotes.

    >>> html('<b>a & "b"')
    '&lt;b&gt;a &amp; &quot;b&quot;'
    """
    return escape_html(printable(text))


def terminal(text: str) -> str:
    """One line for what rich prints, which would take [red] for a colour."""
    return escape(printable(text))


def markdown(text: str, code: bool = False) -> str:
    r"""One line of Markdown that shows the text as it is, in a table too.

    Args:
        text: any.
        code: whether to set it as code, if nothing in it would end the code.

    >>> markdown("<b>a|b</b>"), markdown("model_int8", code=True)
    ('&lt;b&gt;a\\|b&lt;/b&gt;', '`model_int8`')
    """
    text = printable(text)
    if code and text.strip() and not set("`|") & set(text):
        return f"`{text}`"
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", text)
