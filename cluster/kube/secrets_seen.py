"""What looks like a secret, and so must not stand in a file that people keep and review."""

from __future__ import annotations

import re

_PARTS = {"SECRET", "TOKEN", "PASSWORD", "PASSWD", "PASS", "PWD", "CREDENTIAL", "CREDENTIALS", "KEY", "APIKEY"}
_PLACES = ("FILE", "PATH", "DIR")

_FORMS = (
    ("an AWS access key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    ("a Hugging Face token", r"\bhf_[A-Za-z0-9]{20,}"),
    ("an API key", r"\bsk-[A-Za-z0-9_-]{20,}"),
    ("an API key", r"\bAIza[A-Za-z0-9_-]{35}"),
    ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})"),
    ("a Slack token", r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    ("a signed token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}"),
    ("a private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    ("a password in a URI", r"://[^/\s:@\"']+:[^/\s:@\"']+@"),
    ("an account key", r"(?i)\b(?:AccountKey|SharedAccessSignature)="),
)


def secret_name(name: str) -> bool:
    """Whether a variable of that name holds a secret: ``HF_TOKEN`` does, ``AWS_WEB_IDENTITY_TOKEN_FILE`` does not."""
    parts = name.upper().split("_")
    return parts[-1] not in _PLACES and bool(_PARTS & set(parts))


def secret_in(text: str) -> tuple[str, int] | None:
    """What kind of secret ``text`` has in it, and on which line (from 1); None if it looks like having none."""
    for kind, form in _FORMS:
        found = re.search(form, text)
        if found:
            return kind, text.count("\n", 0, found.start()) + 1
    return None
