"""Arrow types of input columns: as headrace reads them, and the type that can hold those of several files."""

from __future__ import annotations

import pyarrow as pa


def fit(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """``table`` with the columns, types and metadata of ``schema``.

    Raises:
        KeyError: a column is missing.
        pyarrow.ArrowException: a value does not fit its type. Values are never changed to fit.
    """
    table = table.select(schema.names)
    if table.schema.equals(schema):
        return pa.Table.from_arrays(table.columns, schema=schema)
    return table.cast(schema)


def widest(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both, or None. A dictionary stays one only if both are dictionaries."""
    if one.equals(other):
        return one
    for pair in ((one, other), (_without_encodings(one), _without_encodings(other))):
        try:
            schemas = [pa.schema([pa.field("x", kind)]) for kind in pair]
            return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
        except pa.ArrowException:
            continue
    return None


def kept_type(kind: pa.DataType) -> pa.DataType:
    """``kind`` as headrace reads and writes it: a dictionary only if it is the column itself."""
    return kind if pa.types.is_dictionary(kind) else _without_encodings(kind)


def _without_encodings(kind: pa.DataType) -> pa.DataType:
    """``kind`` with dictionaries and views, at any depth, replaced by the plain values that they encode.

    Decimals of 32 and 64 bits, which some readers do not know, become decimals of 128.
    """
    if pa.types.is_dictionary(kind):
        return _without_encodings(kind.value_type)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return pa.large_string() if pa.types.is_string_view(kind) else pa.large_binary()
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_encodings(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_without_encodings(kind.key_type), _without_encodings(kind.item_type))
    for is_one, make in _LISTS:
        if is_one(kind):
            return make(kind.value_field.with_type(_without_encodings(kind.value_type)))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_without_encodings(kind.value_type)), kind.list_size)
    return kind


_LISTS = (
    (pa.types.is_list, pa.list_),
    (pa.types.is_large_list, pa.large_list),
)
