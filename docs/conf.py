"""Sphinx's configuration: ``make docs`` builds the site from README, CHANGELOG and the pages in docs/."""

from __future__ import annotations

import re
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

# The sources begin at the top of the repository: a link between README and docs/ leads to the same place on the site
# and in the repository.
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**.md", "cluster/deploy/README.md"]
include_patterns += ["examples/plugins/*/README.md"]
exclude_patterns = [".*", "build", "tests", "benchmarks", "headrace"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}

myst_heading_anchors = 4
myst_enable_extensions = ["fieldlist"]

default_role = "code"
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "model_config"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"headrace {release}"
html_static_path = ["_static"]
html_css_files = ["headrace.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "default"
pygments_dark_style = "github-dark"


GOOGLE = Config(napoleon_google_docstring=True, napoleon_use_rtype=False, napoleon_use_ivar=True)


def as_rest(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Sections such as ``Args:`` become fields.

    Napoleon's own hook would also take the first words of an attribute's docstring for its type.
    """
    if what not in ("attribute", "property", "data"):
        lines[:] = GoogleDocstring(lines, GOOGLE, app, what, name, obj, options).lines()
    if isinstance(obj, type) and issubclass(obj, BaseModel) and not getattr(options, "members", None):
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


def navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    """The front page's lists are the navigation, too: a hidden toctree for each of its sections."""
    if docname != root_doc:
        return
    trees = ""
    for section in source[0].split("\n## ")[1:]:
        caption = section.partition("\n")[0]
        links = re.findall(r"^- \[([^]]+)\]\((\S+?)\.md\)", section, re.MULTILINE)
        entries = "".join(f"{title} <{path}>\n" for title, path in links)
        trees += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}```\n"
    source[0] += trees


def only_linked(app: Sphinx, doctree: object) -> None:
    """Pages of the repository outside of docs/ may be missing in the navigation."""
    name = app.env.current_document.docname
    if not name.startswith("docs/"):
        app.env.metadata[name]["orphan"] = ""


def front_door(app: Sphinx, failure: Exception | None) -> None:
    """The site's own address leads to the front page."""
    if failure is None:
        front = f"{root_doc}.html"
        head = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={front}">'
        (Path(app.outdir) / "index.html").write_text(f'{head}<title>{project}</title><a href="{front}">{project}</a>\n')


def setup(app: Sphinx) -> None:
    app.connect("source-read", navigation)
    app.connect("doctree-read", only_linked)
    app.connect("build-finished", front_door)
    app.connect("autodoc-process-docstring", as_rest)
    app.connect("autodoc-process-signature", plain_signature)
