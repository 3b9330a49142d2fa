"""The address of a cluster's Jobs API, and its token.

The token is found as by Ray: in ``RAY_AUTH_TOKEN``, in the file named by ``RAY_AUTH_TOKEN_PATH``, or in
``~/.ray/auth_token``. It goes into the ``Authorization`` header and nowhere else.

Imported in Airflow's environment, so this uses the standard library alone.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from headrace.cluster.jobs.jobs_api import NotAuthorized
from headrace.pipelines.storage.locations import without_secrets

PORT = 8265
"""Default port of Ray's dashboard, which serves the Jobs API."""


def jobs_url(address: str) -> str:
    """The base URL of an address such as ``http://head:8265``, ``https://gateway/ray`` or just ``head``.

    Raises:
        ValueError: it is not the address of a Jobs API.
    """
    text = address.strip().rstrip("/")
    if re.match(r"ray://", text):
        raise ValueError(
            f"{without_secrets(address)!r} is the address of Ray's client server. Jobs need the address of the "
            f"dashboard, such as http://{urlsplit(text).hostname or 'HEAD'}:{PORT}"
        )
    if "://" not in text:
        text = f"http://{text}"
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query or parts.fragment:
        raise ValueError(
            f"{without_secrets(address)!r} is not the address of a Ray cluster's dashboard: write http://HEAD:{PORT}"
        )
    if parts.username or parts.password:
        raise ValueError("the address must not contain credentials: put the token into RAY_AUTH_TOKEN")
    if port is None and parts.scheme == "http" and not parts.path:
        text = f"{text}:{PORT}"
    return text


def found_token() -> str | None:
    """The token that Ray's own tools would send; None if there is none, or if ``RAY_AUTH_MODE`` is ``disabled``.

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
            raise NotAuthorized(f"RAY_AUTH_TOKEN_PATH names {named}, which does not exist") from error
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise NotAuthorized(f"the token in {path} cannot be read: {error}") from error
