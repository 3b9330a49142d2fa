"""Recognizes what looks like a secret, to keep it out of manifests, commands of jobs and ``headrace.yaml``.

Imported in Airflow's environment, so this uses the standard library alone.
"""

from __future__ import annotations

import re

_PARTS = {"SECRET", "PASSWORD", "PASSWD", "PASS", "PWD", "CREDENTIAL", "CREDENTIALS", "APIKEY"}
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
    ("a password in a URI", r"://[^/\s:@\"']*:[^/\s@\"']*@"),
    ("an account key", r"(?i)\b(?:AccountKey|SharedAccessSignature)="),
)


def secret_name(name: str) -> bool:
    """Whether the name of a variable or a key (``storage.secret_key``) is typical of a secret.

    ``HF_TOKEN``, ``api-key`` and ``AWS_ACCESS_KEY_ID`` do; ``AWS_WEB_IDENTITY_TOKEN_FILE``, ``allowed_token_ids`` and
    ``key`` do not.
    """
    parts = re.split(r"[_.\-]", name.upper())
    if parts[-1] in _PLACES:
        return False
    return bool(_PARTS & set(parts)) or parts[-1] == "TOKEN" or "KEY" in parts[1:]


def secret_in(text: str) -> tuple[str, int] | None:
    """The kind of secret that ``text`` seems to contain, and its line (from 1); None if it contains none."""
    for kind, form in _FORMS:
        found = re.search(form, text)
        if found:
            return kind, text.count("\n", 0, found.start()) + 1
    return None
