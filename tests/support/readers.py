"""Readers of tables that know nothing of headrace: each makes rows of a path."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
Reader = Callable[[str], list[Row]]


def polars(path: str) -> list[Row]:
    import polars as pl

    return pl.scan_parquet(path).collect().to_dicts()


def duckdb(path: str) -> list[Row]:
    import duckdb as engine

    with engine.connect() as connection:
        rows: list[Row] = connection.sql("FROM read_parquet(?)", params=[path]).to_arrow_table().to_pylist()
    return rows


def pandas(path: str) -> list[Row]:
    import pandas as pd

    return pd.read_parquet(path).to_dict("records")


def pyarrow(path: str) -> list[Row]:
    import pyarrow.parquet as pq

    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows


def pyarrow_dataset(path: str) -> list[Row]:
    import pyarrow.dataset as ds

    rows: list[Row] = ds.dataset(path, format="parquet").to_table().to_pylist()
    return rows


def daft(path: str) -> list[Row]:
    import daft as engine

    return engine.read_parquet(path).to_pylist()


def datafusion(path: str) -> list[Row]:
    from datafusion import SessionContext

    return [row for batch in SessionContext().read_parquet(path).collect() for row in batch.to_pylist()]


def datasets(path: str) -> list[Row]:
    """``load_dataset(FOLDER)``, which finds the files by their suffixes."""
    return _datasets(path)


def datasets_folder(path: str) -> list[Row]:
    """``load_dataset("parquet", data_dir=FOLDER)``, which takes every file for Parquet."""
    return _datasets("parquet", data_dir=path)


def _datasets(*args: str, **options: str) -> list[Row]:
    import datasets as library

    library.disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache:
        found = library.load_dataset(*args, **options, cache_dir=cache, split="train")
        return list(found.to_list())


READERS: dict[str, Reader] = {
    read.__name__: read
    for read in (polars, duckdb, pandas, pyarrow, pyarrow_dataset, daft, datafusion, datasets, datasets_folder)
}
