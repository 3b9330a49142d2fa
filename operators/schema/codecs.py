"""The conversions between JSON values and Arrow: one codec for each type that a column or a field of it can have."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from headrace.operators.schema.lazy_module import LazyModule
from headrace.operators.schema.nodes import compact
from headrace.operators.schema.not_accepted import NotAccepted

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = LazyModule("pyarrow")

INT64 = range(-(2**63), 2**63)
T = TypeVar("T")


class Codec(Protocol):
    """A column type's two conversions: from a valid JSON value to what Arrow takes, and from Arrow's value to JSON.

    Neither gets a null.

    Example::

        codec = Date("since")
        codec.type  # date32[day]
        codec.to_arrow("2026-11-28")  # datetime.date(2026, 11, 28)
        codec.from_arrow(datetime.date(2026, 11, 28))  # "2026-11-28"
        codec.to_arrow("soon")  # raises NotAccepted
    """

    @property
    def type(self) -> pa.DataType:
        """The Arrow type of the column."""
        ...

    def to_arrow(self, value: Any) -> Any:
        """A valid JSON value as plain Python that Arrow takes.

        Raises:
            NotAccepted: the type cannot hold the value.
        """
        ...

    def from_arrow(self, value: Any) -> Any:
        """The JSON value of what ``to_pylist`` returns."""
        ...


@dataclass(frozen=True, slots=True)
class JsonText:
    """A value without an Arrow type."""

    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.string()

    def to_arrow(self, value: Any) -> str:
        try:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except ValueError:
            rule = "is beyond what JSON can hold"
            raise NotAccepted(f"{self.where}: a number in {_shown(value)} {rule}", rule) from None

    def from_arrow(self, value: Any) -> Any:
        return json.loads(value)


@dataclass(frozen=True, slots=True)
class Text:
    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.string()

    def to_arrow(self, value: Any) -> str:
        return _expect(self.where, value, str)

    def from_arrow(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True)
class Label:
    """One of a few strings.

    Only for a whole column. A Parquet file with a dictionary inside a struct or a list cannot be read by pyarrow's
    ``ParquetFile`` beyond one row group (apache/arrow, "Nested data conversions not implemented for chunked array
    outputs", 26.0), so there it is a plain string, which Parquet itself stores as a dictionary anyway.
    """

    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.dictionary(pa.int32(), pa.string())

    def to_arrow(self, value: Any) -> str:
        return _expect(self.where, value, str)

    def from_arrow(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True)
class Boolean:
    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.bool_()

    def to_arrow(self, value: Any) -> bool:
        return _expect(self.where, value, bool)

    def from_arrow(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True)
class Integer:
    """64 bits. JSON Schema counts 3.0 as an integer."""

    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.int64()

    def to_arrow(self, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        number = _expect(self.where, value, int)
        if number not in INT64:
            raise _refused(self.where, number, "does not fit into 64 bits")
        return number

    def from_arrow(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True)
class Number:
    """A double, as in JavaScript: an integer beyond 2**53 keeps its leading 15 digits."""

    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.float64()

    def to_arrow(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _unexpected(self.where, value, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise _refused(self.where, value, "is beyond what a 64-bit float can hold")
        return number

    def from_arrow(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True)
class Date:
    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.date32()

    def to_arrow(self, value: Any) -> date:
        text = _expect(self.where, value, str)
        try:
            return date.fromisoformat(text)
        except ValueError as error:
            raise _refused(self.where, value, "is not a valid date", f" ({error})") from None

    def from_arrow(self, value: Any) -> Any:
        return value.isoformat()


@dataclass(frozen=True, slots=True)
class Timestamp:
    """An instant in UTC, to the microsecond; the offset that the answer was written with is not kept."""

    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.timestamp("us", tz="UTC")

    def to_arrow(self, value: Any) -> datetime:
        text = _expect(self.where, value, str)
        try:
            instant = datetime.fromisoformat(text.upper())
            if instant.tzinfo is not None:
                return instant.astimezone(UTC)
            why = "it has no offset from UTC"
        except (ValueError, OverflowError) as error:
            why = str(error)
        raise _refused(self.where, value, "is not a valid time", f" ({why})")

    def from_arrow(self, value: Any) -> Any:
        return value.isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Items:
    """A list of one type."""

    where: str
    item: Codec

    @property
    def type(self) -> pa.DataType:
        return pa.list_(self.item.type)

    def to_arrow(self, value: Any) -> list[Any]:
        convert = self.item.to_arrow
        return [None if item is None else convert(item) for item in _expect(self.where, value, list)]

    def from_arrow(self, value: Any) -> Any:
        return [None if item is None else self.item.from_arrow(item) for item in value]


@dataclass(frozen=True, slots=True)
class Struct:
    """An object whose fields are all named."""

    where: str
    fields: Mapping[str, Codec]

    @property
    def type(self) -> pa.DataType:
        return pa.struct([pa.field(name, codec.type) for name, codec in self.fields.items()])

    def to_arrow(self, value: Any) -> dict[str, Any]:
        record = _expect(self.where, value, dict)
        extra = [name for name in record if name not in self.fields]
        if extra:
            raise _refused(self.where, extra[0], "is not a property of the schema", ", so no column holds it")
        result = {}
        for name, codec in self.fields.items():
            item = record.get(name)
            result[name] = None if item is None else codec.to_arrow(item)
        return result

    def from_arrow(self, value: Any) -> Any:
        return {name: codec.from_arrow(value[name]) for name, codec in self.fields.items() if value[name] is not None}


_NAMES: dict[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    list: "a list",
    dict: "an object",
}


def _expect(where: str, value: Any, kind: type[T]) -> T:
    """Without ``type`` a schema allows values that its keywords do not mention; a column does not."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _unexpected(where, value, _NAMES[kind])
    return value


def _unexpected(where: str, value: Any, wanted: str) -> NotAccepted:
    return _refused(where, value, f"is not {wanted}", ", which is what the column holds")


def _refused(where: str, value: Any, rule: str, more: str = "") -> NotAccepted:
    return NotAccepted(f"{where}: {_shown(value)} {rule}{more}", rule)


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**80:
        return "a number of more than 80 digits"
    text = compact(value)
    return text if len(text) <= 80 else text[:77] + "..."
