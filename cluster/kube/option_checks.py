"""Checks and parses the options of a manifest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from headrace.cluster.jobs.secrets_seen import secret_in, secret_name
from headrace.cluster.kube.options import KubeOptions
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.resources import parse_time
from headrace.pipelines.storage.locations import object_uri, without_userinfo

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

_QUALIFIED = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")

_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?")


def check_places(options: KubeOptions) -> None:
    """Check that pods can reach input and output.

    Raises:
        UserError: they cannot.
    """
    for option, uri in (("--input", options.input), ("--output", options.output)):
        if object_uri(uri) is None:
            raise UserError(
                f"{option} {without_userinfo(uri)!r}: pods cannot see the disks of this machine. Give a location in an "
                f"object store, such as s3://BUCKET/FOLDER."
            )
    place = object_uri(options.output)
    if place is not None and place.scheme == "hf":
        raise UserError(f"--output {options.output!r}: outputs cannot be in hf://. Use s3://, gs:// or abfs://.")


def check_names(options: KubeOptions) -> None:
    """Check that names and amounts are valid in Kubernetes.

    Raises:
        UserError: one is not. The message does not repeat what may be a secret.
    """
    for option, names in (
        ("--secret", options.secrets),
        ("--image-pull-secret", options.image_pull_secrets),
        ("--service-account", [options.service_account] if options.service_account is not None else []),
        ("--namespace", [options.namespace] if options.namespace is not None else []),
    ):
        for name in names:
            if not _SUBDOMAIN.fullmatch(name) or len(name) > 253 or secret_in(name):
                # What was given may be the secret itself, so it is not repeated.
                raise UserError(f"{option}: must be its name in the cluster (lowercase letters, digits, - and .)")
    for option, quantity in (
        ("--head-cpu", options.head_cpu),
        ("--head-memory", options.head_memory),
        ("--worker-cpu", options.worker_cpu),
        ("--worker-memory", options.worker_memory),
    ):
        if quantity is not None and not _QUANTITY.fullmatch(quantity):
            raise UserError(f"{option} {quantity}: must be an amount in Kubernetes' notation, such as 4 or 16Gi.")
    if options.retries < 0:
        raise UserError(f"--retries {options.retries}: must be at least 0.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", options.image):
        raise UserError(f"--image {options.image!r} is not a valid name of an image.")
    if options.pipeline_in_image is not None and not options.pipeline_in_image.startswith("/"):
        raise UserError(f"--pipeline-in-image {options.pipeline_in_image}: must be an absolute path in the image.")


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """Labels, each from ``KEY=VALUE``."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not _QUALIFIED.fullmatch(key) or not _VALUE.fullmatch(value):
            raise UserError(
                f"{option} {text}: must be KEY=VALUE, with the characters that Kubernetes allows in labels."
            )
        found[key] = value
    return found


def env_of(texts: Sequence[str]) -> dict[str, str]:
    """Variables, each from ``NAME=VALUE``.

    Raises:
        UserError: one looks like a secret; the message contains its name only.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UserError("--env: must be NAME=VALUE.")
        if secret_name(name) or secret_in(value):
            raise UserError(
                f"--env {name}: looks like a secret, which must not be in a manifest. Put it into a Secret of the "
                f"cluster (kubectl create secret generic NAME --from-env-file FILE) and name that with --secret NAME."
            )
        found[name] = value
    return found


def seconds(text: str, option: str, least: int) -> int:
    """Whole seconds of a time such as ``90m``; at least ``least``."""
    try:
        seconds = 0 if text.strip() in ("0", "0s") else round(parse_time(text))
    except ValueError as error:
        raise UserError(f"{option} {text}: {error}") from error
    if seconds < least:
        raise UserError(f"{option} {text}: must be longer.")
    return seconds


def toleration_of(text: str) -> dict[str, Any]:
    """A toleration, from ``KEY``, ``KEY=VALUE`` or ``KEY=VALUE:EFFECT``."""
    match = re.fullmatch(r"([^=:]+)(?:=([^=:]*))?(?::(NoSchedule|PreferNoSchedule|NoExecute))?", text)
    if not match or not _QUALIFIED.fullmatch(match[1]) or not _VALUE.fullmatch(match[2] or ""):
        raise UserError(
            f"--toleration {text}: must be KEY, KEY=VALUE or KEY=VALUE:EFFECT, where EFFECT is NoSchedule, "
            f"PreferNoSchedule or NoExecute."
        )
    key, value, effect = match.groups()
    how = {"operator": "Exists"} if value is None else {"operator": "Equal", "value": value}
    return {"key": key, **how, **({"effect": effect} if effect else {})}


def model_cache(text: str) -> dict[str, Any]:
    """The volume for weights, and whether it is read-only: ``{"volume": {...}, "read_only": True}``."""
    kind, _, rest = text.partition(":")
    if kind == "pvc":
        claim, _, mode = rest.partition(":")
        if _SUBDOMAIN.fullmatch(claim) and mode in ("", "ro"):
            read_only = {"readOnly": True} if mode else {}
            volume = {"persistentVolumeClaim": {"claimName": claim, **read_only}}
            return {"volume": volume, "read_only": bool(mode)}
    elif kind == "emptyDir" and re.fullmatch(r"[1-9][0-9]*[MGT]i?", rest):
        return {"volume": {"emptyDir": {"sizeLimit": rest}}}
    elif kind == "hostPath" and rest.startswith("/") and ".." not in rest.split("/"):
        return {"volume": {"hostPath": {"path": rest, "type": "DirectoryOrCreate"}}}
    raise UserError(
        f"--model-cache {text}: must be pvc:NAME (or pvc:NAME:ro), emptyDir:SIZE such as emptyDir:200Gi, or "
        f"hostPath:/PATH."
    )
