"""Texts with the fields that people marked in them, from four packages on PyPI.

Addresses from usaddress, names of people from probablepeople, messages with made-up personal data from
presidio-evaluator, and sentences with quantities from quantulum3's tests.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.sdists import Sdist

Gold = Mapping[str, Any]
"""Right values by field: text, a list of texts, or None where the text says nothing."""

USADDRESS = Sdist(
    "usaddress==0.5.16", "usaddress-0.5.16.tar.gz", "f7e614e2489c159cf85be1b6f86edbfaf329dbeedef4d002a025757afd1ec6c6"
)
PROBABLEPEOPLE = Sdist(
    "probablepeople==0.5.6",
    "probablepeople-0.5.6.tar.gz",
    "4ae95e77f9fa7dceb116538500ab48c81a91bf68eb652d45207b794b450f4392",
)
PRESIDIO = Sdist(
    "presidio-evaluator==0.3.2",
    "presidio_evaluator-0.3.2.tar.gz",
    "2ec1be3710a2843553a5fb185916d85b0fa174fb9e1927e03ea83152fdc95eb1",
)
QUANTULUM = Sdist(
    "quantulum3==0.10.0",
    "quantulum3-0.10.0.tar.gz",
    "c0367f18745e51d67a65cb3fb1f48a45c8280090ec2d49b11d1a9ee496951946",
)

STREET = {"AddressNumber": "house_number", "PlaceName": "city", "StateName": "state", "ZipCode": "zip_code"}
NAME = {"GivenName": "given_name", "Surname": "surname"}
PERSONAL = {
    "PERSON": ("person", "the name of the person"),
    "ORGANIZATION": ("organization", "the company or organization"),
    "STREET_ADDRESS": ("address", "the postal address"),
    "GPE": ("country", "the country"),
    "PHONE_NUMBER": ("phone", "the telephone number"),
}


@dataclass(frozen=True, slots=True)
class Marked:
    """A set: the schema as a user would write it, and texts with their right values, in an order by chance."""

    name: str
    schema: Mapping[str, Any]
    rows: Sequence[tuple[str, Gold]]


def _record(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def _tagged(xml: str, field: Callable[[str], str | None], wanted: Iterable[str], least: int) -> list[tuple[str, Gold]]:
    """Texts of at least ``least`` words whose tokens have these fields, each side by side, and no text twice."""
    found: dict[str, Gold] = {}
    for item in ElementTree.fromstring(xml):
        text = " ".join("".join(item.itertext()).split())
        parts: dict[str, list[str]] = {}
        for token in item:
            if (name := field(token.tag)) is not None:
                parts.setdefault(name, []).append((token.text or "").strip())
        gold = {name: " ".join(words).strip(" ,;") for name, words in parts.items()}
        if gold.keys() == set(wanted) and all(value in text for value in gold.values()) and len(text.split()) >= least:
            found[text] = gold
    return list(found.items())


def addresses(folder: Path) -> Marked:
    """Addresses in the United States that have all five fields."""
    bounds = {"house_number": 20, "street": 60, "city": 40, "state": 20, "zip_code": 10}
    xml = USADDRESS.read("training/us50_train_tagged.xml", folder)
    rows = _tagged(xml, lambda tag: "street" if tag.startswith("StreetName") else STREET.get(tag), bounds, 1)
    schema = _record({name: {"type": "string", "maxLength": most} for name, most in bounds.items()})
    return Marked("addresses", schema, _shuffled(rows))


def names(folder: Path) -> Marked:
    """Names of people, with more in them than a given name and a surname."""
    xml = PROBABLEPEOPLE.read("name_data/labeled/person_labeled.xml", folder)
    rows = _tagged(xml, NAME.get, NAME.values(), 3)
    return Marked("names", _record({name: {"type": "string"} for name in NAME.values()}), _shuffled(rows))


def messages(folder: Path) -> Marked:
    """Messages that have at least two of five kinds of personal data, and none of them twice."""
    rows: list[tuple[str, Gold]] = []
    for item in json.loads(PRESIDIO.read("data/synth_dataset_v2.json", folder)):
        spans = [span for span in item["spans"] if span["entity_type"] in PERSONAL]
        most = max(Counter(span["entity_type"] for span in spans).values(), default=0)
        if len(spans) < 2 or most > 1 or len(item["full_text"]) > 400:
            continue
        gold = {field: None for field, _ in PERSONAL.values()}
        rows.append(
            (item["full_text"], gold | {PERSONAL[s["entity_type"]][0]: s["entity_value"].strip(" ,;") for s in spans})
        )
    fields = {field: {"type": ["string", "null"], "description": about} for field, about in PERSONAL.values()}
    return Marked("messages", _record(fields), _shuffled(rows))


def quantities(folder: Path) -> Marked:
    """Sentences with one to four quantities."""
    rows: list[tuple[str, Gold]] = []
    for item in json.loads(QUANTULUM.read("quantulum3/_lang/en_US/tests/quantities.json", folder)):
        found = [quantity["surface"] for quantity in item["res"]]
        if 1 <= len(found) <= 4 and all(each in item["req"] for each in found) and len(item["req"].split()) >= 5:
            rows.append((item["req"], {"quantities": found}))
    texts = {"type": "array", "maxItems": 4, "items": {"type": "string", "maxLength": 40}}
    schema = _record({"quantities": texts | {"description": "measurements with their units"}})
    return Marked("quantities", schema, _shuffled(rows))


SETS = (addresses, names, messages, quantities)


def _shuffled(rows: list[tuple[str, Gold]]) -> list[tuple[str, Gold]]:
    random.Random(12).shuffle(rows)
    return rows
