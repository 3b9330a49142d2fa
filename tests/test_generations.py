"""New generations of an output: changed columns done again, dead letters asked again, what is gone removed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.pipelines.errors import UserError
from headrace.pipelines.plan import PlanMismatch, load_plan
from headrace.pipelines.storage import LocalStore
from tests.in_process import InProcess, Stopped, here

__all__ = ["here"]

Write = Callable[..., Path]

FACTS = {"type": "object", "properties": {"product": {"type": "string"}}, "required": ["product"]}

STEPS: dict[str, Any] = {
    "name": "reviews",
    "model": {"id": "fake"},
    "document": "{{ text }}",
    "keep": ["id"],
    "steps": [
        {"classify": {"name": "opinion", "labels": {"positive": "happy", "negative": "complains"}}},
        {"extract": {"name": "facts", "schema": FACTS}},
        {"summarize": {"name": "summary", "max_words": 20, "when": "opinion = 'negative'"}},
        {"generate": {"name": "reply", "prompt": "About {{ facts.product }}", "retries": 1}},
        {"map": {"name": "size", "function": "builtins:len", "reads": ["id"]}},
    ],
    "checkpoint_rows": 10,
    "max_error_rate": 1.0,
}


def texts(shard: int, rows: int) -> list[str | None]:
    return [f"document {shard} {row}." for row in range(rows)]


def changed(change: Callable[[dict[str, Any]], object], data: dict[str, Any] = STEPS) -> dict[str, Any]:
    data = copy.deepcopy(data)
    change(data)
    return data


def step(data: dict[str, Any], name: str) -> dict[str, Any]:
    found = (next(iter(each.values())) for each in data["steps"])
    return next(each for each in found if each["name"] == name)


ALL = {"opinion", "facts", "summary", "reply"}


def test_a_first_run(here: InProcess, corpus: Write) -> None:
    result = here(STEPS, corpus(texts(0, 25), texts(1, 5)))
    assert result.status == "complete"
    assert set(here.asked) == ALL
    assert here.table().height == 30


def test_one_prompt_changed(here: InProcess, corpus: Write) -> None:
    source = corpus(texts(0, 25), texts(1, 5))
    here(STEPS, source)
    before = here.table()
    other = changed(lambda d: step(d, "facts").update(instruction="Other."))
    with pytest.raises(PlanMismatch, match="recompute"):
        here(other, source)
    result = here(other, source, recompute="changed")
    assert set(here.asked) == {"facts", "reply"}, here.said
    assert here.said
    print(here.said)
    after = here.table()
    assert result.status == "complete"
    assert after.drop("facts", "reply").equals(before.drop("facts", "reply"))
    assert not after["facts"].equals(before["facts"])
