"""q4_denoise_text/published.py: weights that are what they claim to be, cached ids."""

import numpy as np
import pytest

from q4_denoise_text import corpus, published, restoration


def test_the_published_denoiser_restores_better_than_copying():
    denoiser, tokenizer, _ = published.load_published()
    texts = ["this is one of the best films i have ever seen .", "i hated this movie ."]
    token_ids = restoration.pad_rows([np.array(tokenizer(text)) for text in texts])
    token_ids = np.repeat(token_ids, 20, axis=0)
    corrupted = restoration.corrupted_copy(token_ids)
    restored = restoration.restore(denoiser, corrupted)
    scores = restoration.restoration_scores(token_ids, corrupted, restored)
    assert scores["error_reduction"] > 0.2


def test_the_published_files_are_small_and_belong_together():
    _, tokenizer, record = published.load_published()
    assert published.WEIGHTS.stat().st_size <= 12e6
    special = corpus.SPECIAL_TOKENS
    assert tokenizer.get_vocabulary()[: len(special)] == special
    assert sum(record["lengths"]) == record["sentences"]
    assert np.arange(len(record["lengths"])) @ record["lengths"] == record["tokens"]
    assert len(record["history"]["loss"]) == published.EPOCHS


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path, monkeypatch):
    (tmp_path / "denoiser.weights.h5").write_bytes(b"something else")
    (tmp_path / "pretraining.json").write_text('{"sha256": "00"}')
    monkeypatch.setattr(published, "WEIGHTS", tmp_path / "denoiser.weights.h5")
    monkeypatch.setattr(published, "RECORD", tmp_path / "pretraining.json")
    with pytest.raises(ValueError, match="not the published file"):
        published.load_published()


def test_token_ids_are_cached(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "BUILD", tmp_path)
    tokenizer = corpus.make_tokenizer([*corpus.SPECIAL_TOKENS, "good", "film"])
    texts = corpus.Corpus("toy", np.array(["good film", "film"]), np.array(["good"]))
    train, held_out = published.encode_corpus(texts, tokenizer)
    assert [row.tolist() for row in train] == [[5, 6], [6]]
    assert [row.tolist() for row in held_out] == [[5]]
    monkeypatch.setattr(published, "tokenize", None)  # from now on the cache has to do
    again, _ = published.encode_corpus(texts, tokenizer)
    assert [row.tolist() for row in again] == [[5, 6], [6]]


def test_another_vocabulary_has_a_cache_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(published, "BUILD", tmp_path)
    texts = corpus.Corpus("one", np.array(["a"]), np.array(["b"]))
    for words, expected in ((["a", "b"], [5]), (["b", "a"], [6])):
        tokenizer = corpus.make_tokenizer([*corpus.SPECIAL_TOKENS, *words])
        train, _ = published.encode_corpus(texts, tokenizer)
        assert train[0].tolist() == expected
