"""How a summary is sampled."""

from __future__ import annotations

import pytest

from headrace.operators import Summarize


def test_a_summary_may_use_the_documents_words() -> None:
    (question,) = Summarize(name="summary").questions()
    assert question.sampling.repetition_penalty == 1.0
    assert question.sampling.frequency_penalty > 0


@pytest.mark.slow
def test_vllm_gets_both_penalties() -> None:
    pytest.importorskip("vllm")
    from headrace.cluster.engines.vllm.engine import sampling_params

    (question,) = Summarize(name="summary").questions()
    params = sampling_params(question.constraint, question.sampling)
    assert (params.repetition_penalty, params.frequency_penalty) == (1.0, question.sampling.frequency_penalty)
