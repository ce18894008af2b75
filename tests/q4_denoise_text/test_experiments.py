"""q4_denoise_text/experiments.py: a few sentences that a denoiser memorizes."""

from q4_denoise_text import experiments
from tests.compiled import NO_XLA, compile_all
from tests.q4_denoise_text.test_transfer import SMALL, VOCAB, rows_of


def test_a_few_sentences_are_memorized(monkeypatch):
    compile_all(monkeypatch, **NO_XLA)
    _, losses, scores = experiments.overfit(
        rows_of(6), VOCAB, steps=150, learning_rate=2e-2, **SMALL | {"width": 32}
    )
    assert losses[-1] < 1 < losses[0]
    assert scores["token_accuracy"] > 0.9
