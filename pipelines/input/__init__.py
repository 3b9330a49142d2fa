"""Where rows come from.

The names below are what a source of another package needs. They are imported on first use.
"""

from typing import TYPE_CHECKING

from headrace.operators.lazy_names import lazily

if TYPE_CHECKING:
    from headrace.pipelines.input.corpus import Corpus as Corpus
    from headrace.pipelines.input.corpus import Mark as Mark
    from headrace.pipelines.input.corpus import Shard as Shard
    from headrace.pipelines.input.corpus import Variant as Variant
    from headrace.pipelines.input.file_source import FileSource as FileSource
    from headrace.pipelines.input.files import InputFile as InputFile
    from headrace.pipelines.input.rows import Rows as Rows
    from headrace.pipelines.input.rows import from_python as from_python
    from headrace.pipelines.input.scans import Description as Description
    from headrace.pipelines.input.source import InputChanged as InputChanged
    from headrace.pipelines.input.source import Source as Source

_HOME = {
    "Corpus": "headrace.pipelines.input.corpus",
    "Description": "headrace.pipelines.input.scans",
    "FileSource": "headrace.pipelines.input.file_source",
    "InputChanged": "headrace.pipelines.input.source",
    "InputFile": "headrace.pipelines.input.files",
    "Mark": "headrace.pipelines.input.corpus",
    "Rows": "headrace.pipelines.input.rows",
    "Shard": "headrace.pipelines.input.corpus",
    "Source": "headrace.pipelines.input.source",
    "Variant": "headrace.pipelines.input.corpus",
    "from_python": "headrace.pipelines.input.rows",
}

__all__ = sorted(_HOME)  # noqa: PLE0605  (strings, from the table above)

__getattr__, __dir__ = lazily(__name__, _HOME)
