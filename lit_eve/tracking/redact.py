"""Passwords and tokens out of everything that is recorded."""

from __future__ import annotations

import re

HIDDEN = "***"

_WORDS = r"(?:password|passwd|secret|token|credentials?|(?:api|access|secret|private)[_\-]?key)"
_LOGIN = re.compile(
    r"(?P<scheme>[a-zA-Z][\w+.\-]*://)(?:[^\s/@'\"]*:[^\s/'\"]*|(?<=https://)[^\s/'\"]+|(?<=http://)[^\s/'\"]+)@"
)
_QUERY = re.compile(rf"(?P<name>[?&][\w.\-]*{_WORDS})=[^\s&#'\"]+", re.IGNORECASE)
_SETTING = re.compile(
    rf"(?P<name>\b[\w.\-]*{_WORDS}[\"']?)(?P<is>\s*[=:]\s*)(?P<value>[^\s,;&}}\]]+)", re.IGNORECASE
)


def redact_urls(text: str) -> str:
    """The text without the logins and secret query values of its URLs; all else stays as it is."""
    return _QUERY.sub(rf"\g<name>={HIDDEN}", _LOGIN.sub(rf"\g<scheme>{HIDDEN}@", text))


def redact(text: str) -> str:
    """The text without URL logins and without the values of names that end like a secret's.

    A reference to an environment variable (`${oc.env:NAME}`) is no secret and stays.
    """
    return _SETTING.sub(_hide, redact_urls(text))


def _hide(match: re.Match[str]) -> str:
    if match["value"].strip("\"'").startswith("${"):
        return match[0]
    return f"{match['name']}{match['is']}{HIDDEN}"
