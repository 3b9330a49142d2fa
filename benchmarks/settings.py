"""How much is measured: the sizes of a full run (about an hour on two cores) and of a quick one (some minutes)."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.pipelines import CHAIN

BENCHES = (
    "three-steps",
    "transformers",
    "six-steps",
    "overhead",
    "lengths",
    "steps",
    "quality",
    "window",
    "cpu",
    "defaults",
)
"""What ``--only`` can name."""

HOURS = ("defaults",)
"""Those that run only if ``--only`` names them: on a small CPU, Ray Data LLM takes hours for so many documents."""

ONE_ENGINE = ("overhead", "lengths", "steps", "quality")
"""Those that share one process with one engine."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Numbers of documents, rounds, and what is swept.

    Attributes:
        systems: measured side by side over three steps, in this order in every round.
        documents: of three steps; ``few`` for what is slow by the document (Transformers row by row), ``batch`` for
            Transformers in one batch, ``six_documents`` of :attr:`six_tokens` tokens for six steps.
        window_documents: for each number of documents in flight, of mixed lengths between :attr:`window_lengths`.
        pools: sizes of the KV cache, in tokens.
        layout: of headrace's prompts where it runs beside others.
        windows: documents in flight; None is headrace's own choice.
        cpu_rows: rows whose processor time is taken apart.
        default_documents: of three steps with headrace's default settings, beside ``default_rival``.
    """

    rounds: int = 3
    layout: str = CHAIN
    tokens: int = 500
    documents: int = 24
    systems: tuple[str, ...] = ("headrace", "ray-piped", "ray-sequential")
    few: int = 2
    batch: int = 8
    six_tokens: int = 1000
    six_documents: int = 8
    lengths: tuple[int, ...] = (250, 500, 1000, 2000)
    length_documents: int = 4
    step_counts: tuple[int, ...] = (1, 3, 6)
    step_documents: int = 4
    quality_reviews: int = 200
    pools: tuple[int, ...] = (8192, 16384, 32768)
    windows: tuple[int | None, ...] = (4, 64, None)
    window_documents: int = 24
    window_lengths: tuple[int, int] = (50, 6000)
    window_rounds: int = 1
    cpu_rows: int = 2000
    default_documents: int = 300
    default_rival: str = "ray-piped"


FULL = Settings()

QUICK = Settings(
    rounds=1,
    documents=4,
    systems=("headrace", "ray-sequential"),
    few=1,
    batch=4,
    six_documents=2,
    lengths=(500,),
    length_documents=2,
    step_counts=(1, 3),
    step_documents=2,
    quality_reviews=20,
    pools=(8192,),
    windows=(4, None),
    window_documents=4,
    cpu_rows=500,
    default_documents=32,
    default_rival="ray-sequential",
)

QUICK_BENCHES = ("three-steps", "transformers", "overhead", "quality", "cpu")
"""What a quick run does unless ``--only`` says otherwise: each further bench starts engines of its own."""
