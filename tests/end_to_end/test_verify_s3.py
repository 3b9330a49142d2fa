"""Outputs in an object store: damage and strangers are found and named as on a disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.pipelines.output.names import TABLE, listed
from headrace.pipelines.output.strangers import Strangers
from headrace.pipelines.output.verify import verify_output
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.opening import open_store
from tests.support.in_process import InProcess, here

__all__ = ["here"]


def test_damage_and_strangers_are_found_and_mended(
    here: InProcess, reviews: Callable[..., Pipeline], corpus: Callable[..., Path], prefix: str
) -> None:
    source, output = corpus([f"review {row}." for row in range(40)]), f"{prefix}/answers"
    here(reviews(), source, output=output)
    it = verify_output(output)
    assert (it.findings, it.complete, it.rows.rows) == ([], True, 40)

    store = open_store(output)
    (part,) = listed(store, TABLE)
    content = store.read(part)
    store.replace(part, content[:4] + bytes(200) + content[204:])
    store.replace(f"{TABLE}/copy.parquet", content)
    found = {finding.path: finding for finding in verify_output(output).findings}
    assert found.keys() == {part, f"{TABLE}/copy.parquet"}
    assert found[part].command == f"aws s3 rm {output}/{part}"

    with pytest.raises(Strangers, match=rf"'data/copy\.parquet'.*aws s3 rm {output}/data/copy\.parquet$"):
        here(reviews(), source, output=output)
    assert not store.exists("_SUCCESS")
    for path in found:
        store.delete(path)
    here(reviews(), source, output=output)
    assert not here.requests
    assert verify_output(output).findings == []
