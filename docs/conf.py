"""Sphinx's configuration: ``make docs`` builds the site from README, CHANGELOG and the pages in docs/."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from headrace import __version__ as release  # noqa: E402

project = "headrace"
copyright = "the headrace authors"
version = release

# The sources begin at the top of the repository, so that a link between README and docs/ is right on both.
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "cluster/deploy/README.md", "examples/**.md"]
exclude_patterns = [".*", "build", "tests", "benchmarks"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}

myst_heading_anchors = 4
myst_enable_extensions = ["fieldlist"]

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"headrace {release}"
html_static_path = ["_static"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "default"
pygments_dark_style = "monokai"


GOOGLE = Config(napoleon_google_docstring=True, napoleon_use_rtype=False)


def as_rest(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Sections such as ``Args:`` become fields.

    Napoleon's own hook would also take the first words of an attribute's docstring for its type.
    """
    if what not in ("attribute", "property", "data"):
        lines[:] = GoogleDocstring(lines, GOOGLE, app, what, name, obj, options).lines()
    if isinstance(obj, type) and issubclass(obj, BaseModel):
        lines += fields(obj)


def fields(model: type[BaseModel]) -> Iterator[str]:
    """What each field of a pydantic model is for, where the model says so."""
    described = {field.alias or name: field.description for name, field in model.model_fields.items()}
    for name, text in described.items():
        if text:
            yield from ("", f":param {name}: " + " ".join(text.split()))
    yield ""


def plain_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str, returns: str
) -> tuple[str, str] | None:
    """A pydantic model by its fields and defaults: with its types it would fill a screen."""
    if not (isinstance(obj, type) and issubclass(obj, BaseModel)):
        return None
    required = [field.alias or name for name, field in obj.model_fields.items() if field.is_required()]
    optional = [
        f"{field.alias or name}={field.get_default(call_default_factory=True)!r}"
        for name, field in obj.model_fields.items()
        if not field.is_required()
    ]
    return f"(*, {', '.join(required + optional)})", ""


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", as_rest)
    app.connect("autodoc-process-signature", plain_signature)
