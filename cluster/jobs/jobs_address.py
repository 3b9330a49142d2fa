"""Where a cluster's Jobs API is, and the token that it wants.

The token is found as Ray finds it: ``RAY_AUTH_TOKEN``, the file that ``RAY_AUTH_TOKEN_PATH`` names,
``~/.ray/auth_token``. It goes into the ``Authorization`` header, and nowhere else.

Airflow's environment imports this: the standard library alone.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from headrace.cluster.jobs.jobs_api import NotAuthorized

PORT = 8265
"""Where Ray's dashboard, and with it the Jobs API, listens unless told otherwise."""


def jobs_url(address: str) -> str:
    """The base URL that an address means: ``http://head:8265``, ``https://gateway/ray`` or ``head`` for short.

    Raises:
        ValueError: it is no address of a Jobs API.
    """
    text = address.strip().rstrip("/")
    if re.match(r"ray://", text):
        raise ValueError(
            f"{address!r} is the address of Ray's client server; jobs go to the dashboard, as in "
            f"http://{urlsplit(text).hostname or 'HEAD'}:{PORT}"
        )
    if "://" not in text:
        text = f"http://{text}"
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query or parts.fragment:
        raise ValueError(f"{address!r} is no address of a Ray cluster's jobs: write http://HEAD:{PORT}")
    if parts.username or parts.password:
        raise ValueError("an address has no credentials in it: put the token into RAY_AUTH_TOKEN")
    if port is None and parts.scheme == "http" and not parts.path:
        text = f"{text}:{PORT}"
    return text


def found_token() -> str | None:
    """The token that Ray's own tools would send, or None where there is none, or ``RAY_AUTH_MODE`` is ``disabled``.

    Raises:
        NotAuthorized: ``RAY_AUTH_TOKEN_PATH`` names a file that cannot be read.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError as error:
        if named:
            raise NotAuthorized(f"RAY_AUTH_TOKEN_PATH names {named}, and there is no such file") from error
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise NotAuthorized(f"the token in {path} cannot be read: {error}") from error
