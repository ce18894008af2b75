"""`q4_denoise_text.pretraining`: a run that resumes, pieces, cached token ids."""

import json

import numpy as np
import pytest

from q4_denoise_text import denoise_text, pretraining
from q4_denoise_text.data import SPECIAL_TOKENS, Corpus, make_tokenizer
from tests.compiled import EAGER, compile_all

SMALL = {"width": 16, "depth": 1, "heads": 2}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Redirects what `main` writes, and lets it train on a toy."""
    words = [f"word{i}" for i in range(40)]
    texts = [" ".join(words[i : i + 8]) for i in range(30)]
    corpus = Corpus("toy", [[text] for text in texts] * 20, [["word1 word2"]])
    (tmp_path / "vocabulary.txt").write_text("\n".join([*SPECIAL_TOKENS, *words]))
    monkeypatch.setattr(pretraining, "load_corpus", lambda *args, **kwargs: corpus)
    for module, name, value in [
        (pretraining, "BUILD", tmp_path / "build"),
        (pretraining, "SIZE", SMALL),
        (pretraining, "EPOCHS", 1),
        (pretraining, "STEPS", 2),
        (denoise_text, "WEIGHTS", tmp_path / "denoiser.weights.h5"),
        (denoise_text, "VOCABULARY", tmp_path / "vocabulary.txt"),
        (denoise_text, "RECORD", tmp_path / "pretraining.json"),
    ]:
        monkeypatch.setattr(module, name, value)
    compile_all(monkeypatch, **EAGER)
    return tmp_path


def test_pieces_follow_each_other_and_are_published(published, monkeypatch):
    monkeypatch.setattr(pretraining, "LEARNING_RATES", [1e-3])
    pretraining.main()
    first, tokenizer, record = denoise_text.load_published()
    assert first.count_params() and tokenizer.vocabulary_size() == 43
    assert len(record["pieces"]) == 1
    pretraining.main()  # has nothing left to do
    assert json.loads(denoise_text.RECORD.read_text()) == record
    # The second piece starts from the first, in another process too.
    monkeypatch.setattr(pretraining, "LEARNING_RATES", [1e-3, 2e-3])
    monkeypatch.setattr(pretraining, "BUILD", published / "other")
    pretraining.main()
    second, _, record = denoise_text.load_published()
    assert len(record["pieces"]) == 2
    largest = max(
        np.abs(one - other).max()
        for one, other in zip(first.get_weights(), second.get_weights(), strict=True)
    )
    assert 0 < largest < 0.05


def test_the_published_files_are_small_and_belong_together():
    _, tokenizer, record = denoise_text.load_published()
    assert denoise_text.WEIGHTS.stat().st_size <= 25e6
    vocabulary = tokenizer.get_vocabulary()
    assert vocabulary[: len(SPECIAL_TOKENS)] == SPECIAL_TOKENS
    assert len(vocabulary) == record["size"]["vocab_size"]
    assert np.arange(len(record["lengths"])) @ record["lengths"] == record["tokens"]
    assert len(record["pieces"]) == len(pretraining.LEARNING_RATES)
    assert {len(piece["loss"]) for piece in record["pieces"]} == {pretraining.EPOCHS}


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path, monkeypatch):
    (tmp_path / "denoiser.weights.h5").write_bytes(b"something else")
    (tmp_path / "pretraining.json").write_text('{"sha256": "00"}')
    monkeypatch.setattr(denoise_text, "WEIGHTS", tmp_path / "denoiser.weights.h5")
    monkeypatch.setattr(denoise_text, "RECORD", tmp_path / "pretraining.json")
    with pytest.raises(ValueError, match="not the published file"):
        denoise_text.load_published()


def test_token_ids_are_cached(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "BUILD", tmp_path)
    tokenizer = make_tokenizer([*SPECIAL_TOKENS, "good", "film"])
    corpus = Corpus("toy", [["good film", "film"], ["good"]], [["good"]])
    train, held_out = pretraining.encode_corpus(corpus, tokenizer)
    expected = [[3, 4], [4], [3], [3, 4, 4]]
    assert [row.tolist() for row in train] == expected
    assert [row.tolist() for row in held_out] == [[3]]
    monkeypatch.setattr(pretraining, "tokenize", None)  # only the cache is left
    again, _ = pretraining.encode_corpus(corpus, tokenizer)
    assert [row.tolist() for row in again] == expected


def test_another_vocabulary_has_a_cache_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(pretraining, "BUILD", tmp_path)
    corpus = Corpus("one", [["a"]], [["b"]])
    for words, expected in ((["a", "b"], [3]), (["b", "a"], [4])):
        tokenizer = make_tokenizer([*SPECIAL_TOKENS, *words])
        train, _ = pretraining.encode_corpus(corpus, tokenizer)
        assert train[0].tolist() == expected
