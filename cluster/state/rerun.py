"""What is wanted of an output that is there: the rerun options of a run."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.pipelines.spec.errors import UserError

REDO = ("changed", "all")
"""What ``--recompute`` takes."""

RETRY = ("errors",)
"""What ``--retry`` takes."""


@dataclass(frozen=True, slots=True)
class RerunOptions:
    """What is wanted of an output that is there, besides that it be complete.

    Attributes:
        recompute: ``changed``, ``all``, or nothing.
        retry: ``errors``, or nothing.
        prune: whether the parts of files that are gone go, too.
        reuse: another output, whose answers are to be taken for rows that are the same.
    """

    recompute: str = ""
    retry: str = ""
    prune: bool = False
    reuse: str = ""

    @classmethod
    def of(
        cls, recompute: str | None, retry: str | None, *, prune: bool = False, reuse: str | None = None
    ) -> RerunOptions:
        """From what stands on the command line.

        Raises:
            UserError: words that there are not.
        """
        if recompute not in (None, *REDO):
            raise UserError(f"--recompute takes {' or '.join(REDO)}, not {recompute!r}.")
        if retry not in (None, *RETRY):
            raise UserError(f"--retry takes {' or '.join(RETRY)}, not {retry!r}.")
        if recompute and retry:
            raise UserError("--recompute and --retry are two runs: first the one, then the other.")
        return cls(recompute or "", retry or "", prune, reuse or "")


NO_RERUN = RerunOptions()
