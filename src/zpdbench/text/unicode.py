"""Text as it is kept, and as it is compared: Unicode has several spellings of one thing."""

from __future__ import annotations

import re
import unicodedata

from zpdbench.errors import UserError

# Default_Ignorable_Code_Point: soft hyphen, zero-width spaces and joiners, direction marks, ...
_IGNORED = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def composed(text: str) -> str:
    """A text in Unicode's composed form (NFC): a Hangul syllable is one character, not three."""
    return unicodedata.normalize("NFC", text)


def fold(text: str) -> str:
    """A text for comparing: compatibility forms, case and invisible characters evened out.

    Source: the Unicode Standard, section 3.13, `toNFKC_Casefold`.
    """
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", _IGNORED.sub("", folded))


def fold_spaces(text: str) -> str:
    """`fold`, and each stretch of white space as one space."""
    return " ".join(fold(text).split())


def encodable(text: str, where: str) -> str:
    """The text itself.

    Raises:
        UserError: half of a surrogate pair is in it, which no file can hold.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"lone surrogate U+{ord(text[error.start]):04X} in the text",
            where=where,
            fix="mend or remove it",
        ) from error
    return text
