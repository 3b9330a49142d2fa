"""The rerun options: what a run recomputes of an existing output."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.pipelines.spec.errors import UserError

REDO = ("changed", "all")
"""Values of ``--recompute``."""

RETRY = ("errors",)
"""Values of ``--retry``."""


@dataclass(frozen=True, slots=True)
class RerunOptions:
    """What a run does with an existing output, besides completing it.

    Attributes:
        recompute: ``changed``, ``all`` or empty.
        retry: ``errors`` or empty.
        prune: whether to remove the parts of files that are gone from the input.
        reuse: another output whose answers are reused for unchanged rows; may be empty.
    """

    recompute: str = ""
    retry: str = ""
    prune: bool = False
    reuse: str = ""

    @classmethod
    def of(
        cls, recompute: str | None, retry: str | None, *, prune: bool = False, reuse: str | None = None
    ) -> RerunOptions:
        """From the values of the command line.

        Raises:
            UserError: an unknown value, or options that exclude each other.
        """
        if recompute not in (None, *REDO):
            raise UserError(f"--recompute takes {' or '.join(REDO)}, not {recompute!r}.")
        if retry not in (None, *RETRY):
            raise UserError(f"--retry takes {' or '.join(RETRY)}, not {retry!r}.")
        if recompute and retry:
            raise UserError("--recompute and --retry cannot be combined. Run one, then the other.")
        return cls(recompute or "", retry or "", prune, reuse or "")


NO_RERUN = RerunOptions()
