"""`q4_denoise_text.data`: plain text, token ids, the vocabulary, the corpus."""

import itertools
import shutil
from unicodedata import combining, normalize

import numpy as np
import pytest

from common.archives import DataError
from common.data import Split, TextData
from common.prepared import NotPreparedError, prepared_builder, read_texts
from q4_denoise_text import data
from q4_denoise_text.data import SPECIAL_TOKENS, bare, clean, tokenize
from tests.tiny_sets import apply_damage

UNKNOWN = SPECIAL_TOKENS.index("[UNK]")


def test_tags_become_blanks():
    assert clean("a <i>fine</i> film") == "a fine film"
    assert clean("Good.<br /><br />Bad.") == "Good. Bad."
    assert clean("Good.<BR>Bad.<br/>End") == "Good. Bad. End"
    assert clean('<a href="x.html">a link</a>') == "a link"
    assert clean("") == clean("<p></p>") == clean(" \n\t ") == ""
    assert clean(" \t a \r\n\n b\u00a0\u2003c  <br /> \n d ") == "a b c d"


def test_entities_and_treebank_tokens_become_what_they_stand_for():
    assert clean("Tom &amp; Jerry") == "Tom & Jerry"
    assert clean("caf&eacute; &#233; &#xe9;") == "café é é"
    assert clean("&quot;fine&quot; isn&#39;t it") == '"fine" isn\'t it'
    assert clean("a&nbsp;&nbsp;b") == "a b"
    assert clean("1 &lt; 2") == "1 < 2"
    assert clean("1 &lt; 2 and 3 &gt; 2") == "1 < 2 and 3 > 2"
    assert clean("it does n't , is n't and ca n't") == "it doesn't , isn't and can't"
    assert clean("wo n't") == "won't"
    assert clean("-lrb- really -rrb-") == "( really )"
    assert clean(r"24\/7 action\/adventure") == "24/7 action/adventure"


def test_running_text_stays():
    signs = ["I <3 it", "3 < 4", "5 > 4", "a -> b", "a < b and c > b", "AT&T & co"]
    words = ["It doesn't, really (no).", "n'th", "a well-made film", "café"]
    for text in [*signs, *words, "映画 😀", "“no”"]:
        assert clean(text) == text


def test_bare_leaves_letters_and_digits_whatever_their_spelling():
    assert bare("3 o'clock -- (2001)_!?\n") == "3oclock2001"
    assert bare("café, 映画; ünd") == "café映画ünd"
    assert bare(" \t.,'_-") == bare("") == ""
    treebank, usual = "It is n't bad , really .", "it isn't bad, really."
    assert bare(treebank) == bare(usual) == "itisntbadreally"
    assert bare("A Fine Film") == bare("a fine film") == "afinefilm"
    assert bare("well-made 2") == bare("well made 2") == "wellmade2"


PIECES = "the film is good it ' s bad , ! ##s ##ly שלום 映 😀".split()
VOCABULARY = [*SPECIAL_TOKENS, *PIECES]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "vocabulary.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return data.make_tokenizer(str(path))


def ids(pieces):
    return [VOCABULARY.index(piece) for piece in pieces.split()]


def test_token_ids_are_those_of_the_pieces(tokenizer):
    longest = "good " * (data.MAX_LENGTH - 1) + "film"
    cases = {
        "The FILM is gOOd": "the film is good",
        "films, badly!": "film ##s , bad ##ly !",
        "the films שלום!": "the film ##s שלום !",
        "good": "good",
        "nonsense": "[UNK]",
        "the nonsense film": "the [UNK] film",
        "good 😀 film": "good 😀 film",
        "good 🎬 film": "good [UNK] film",
        "film שלום good": "film שלום good",
        "film مرحبا good": "film [UNK] good",
        "good\t\r\nfilm": "good film",
        "good \x07 \x00 film": "good film",
        "it 's": "it ' s",
        "it's": "it ' s",
        longest: longest,
        longest + " bad" * 1000: longest,
        # A text without tokens becomes one unknown token.
        **dict.fromkeys(["", " ", "\n\t", "\x00", "\x07\x1b", "\u00a0"], "[UNK]"),
    }
    texts = [form for text in cases for form in (text, text.encode())]
    found = tokenize(tokenizer, texts)
    assert {row.dtype for row in found} == {np.dtype("int32")}
    for text, as_string, as_bytes in zip(cases, found[::2], found[1::2], strict=True):
        assert as_string.tolist() == as_bytes.tolist() == ids(cases[text]), text


def test_texts_keep_their_order_their_number_and_their_first_tokens(tokenizer):
    texts = np.array(["good", "films is good", ""] * 6_670)
    found = [row.tolist() for row in tokenize(tokenizer, texts, max_length=2)]
    assert found == [ids("good"), ids("film ##s"), [UNKNOWN]] * 6_670
    assert tokenize(tokenizer, []) == []


def test_bytes_that_are_no_utf8_do_no_harm(tokenizer):
    broken = [b"good \xff film", b"good \xc3 film", b"good \xed\xa0\x80 film"]
    found = tokenize(tokenizer, ["bad", *broken, b"\xff", "bad"])
    for row in found[1:4]:
        assert row[[0, -1]].tolist() == ids("good film")
        assert set(row[1:-1]) <= {UNKNOWN}
    assert set(found[4]) == {UNKNOWN}
    assert found[0].tolist() == found[5].tolist() == ids("bad")


def test_text_cannot_spell_special_tokens(tokenizer):
    (found,) = tokenize(tokenizer, ["[PAD] [MASK] film [mask] [pad]"])
    assert {token for token in found if token < len(SPECIAL_TOKENS)} == {UNKNOWN}
    assert VOCABULARY.index("film") in found


def test_bad_texts_and_lengths_are_named(tokenizer):
    for texts in ("good film", b"good", ["good", None], [["good"]]):
        with pytest.raises(ValueError, match="`texts` must"):
            tokenize(tokenizer, texts)
    for max_length in (0, -1, 1.5, True, None):
        with pytest.raises(ValueError, match="`max_length` must"):
            tokenize(tokenizer, ["good"], max_length=max_length)


def test_words_start_with_pieces_without_hashes(tokenizer):
    starts = data.word_starts(tokenizer)
    assert [VOCABULARY[i] for i in np.flatnonzero(~starts)] == ["##s", "##ly"]


def test_windows_hold_neighbours_of_a_passage_and_no_half_sentence():
    rows = [np.full(size, i + 3) for i, size in enumerate((3, 4, 5, 2, 9, 1))]
    passages = [rows[:4], rows[4:5], rows[5:]]
    found = [row.tolist() for row in data.training_rows(passages, max_length=9)]
    windows = [[3] * 3 + [4] * 4, [5] * 5 + [6] * 2]
    assert found == [*[row.tolist() for row in rows], *windows]


NOUNS = "film actor director story plot camera ending scene".split()
WORDS = "good bad boring charming long short dull lovely".split()
TRAINING = [
    f"The {noun} was {one} and {other}, café no. {n}!"
    for noun in NOUNS
    for n, one in enumerate(WORDS)
    for other in WORDS[:4]
]


@pytest.fixture(scope="module")
def vocabulary():
    return data.learn_vocabulary(TRAINING, size=85)


def test_a_vocabulary_has_special_tokens_then_pieces_of_training_texts(vocabulary):
    assert vocabulary[: len(SPECIAL_TOKENS)] == SPECIAL_TOKENS
    assert len(set(vocabulary)) == len(vocabulary)
    text = " ".join(TRAINING).lower()
    text += "".join(c for c in normalize("NFD", text) if not combining(c))
    pieces = [piece.removeprefix("##") for piece in vocabulary[len(SPECIAL_TOKENS) :]]
    assert all(piece and piece in text for piece in pieces)
    assert set("".join(pieces)) >= set("thefilm7!,.")
    assert {"the", "was", "and"} <= set(vocabulary)


def test_a_vocabulary_has_about_the_size_asked_for_and_follows_its_texts(vocabulary):
    assert 70 <= len(vocabulary) <= 95
    assert 50 <= len(data.learn_vocabulary(TRAINING, size=60)) <= 70
    assert data.learn_vocabulary(TRAINING, size=85) == vocabulary


def test_training_texts_have_no_unknown_tokens_and_other_characters_are(vocabulary):
    texts = ["the zzz film", "the", "film", *TRAINING]
    found, the, film, *known = tokenize(data.make_tokenizer(vocabulary), texts)
    assert found.tolist() == [*the, UNKNOWN, *film]
    assert all(UNKNOWN not in row for row in (the, film, *known))


def fake_corpus(monkeypatch, train, unlabelled=(), measured=(), held_out=1):
    """Loads the corpus of these reviews, without what SST-2 is measured on."""
    sets = {
        "imdb_reviews/plain_text": {"train": train, "unsupervised": unlabelled},
        "glue/sst2": {"validation": measured, "test": ["Nowhere"]},
    }
    monkeypatch.setattr(data, "HELD_OUT", held_out)
    monkeypatch.setattr(data, "prepared_builder", lambda name, *wanted: sets[name])
    monkeypatch.setattr(data, "read_texts", lambda rows, split, _: (rows[split], None))
    return data.load_corpus("tfds")


def numbered(count):
    """Reviews as lists of sentences, and as texts."""
    reviews = [[f"Review {n}, sentence {i}." for i in range(4)] for n in range(count)]
    return reviews, list(map(" ".join, reviews))


def test_reviews_are_held_out_whole_and_taken_once_but_for_short_sentences(monkeypatch):
    reviews, texts = numbered(8)
    texts = [f"Well. Film {n}! {text}" for n, text in enumerate(texts)]
    found = fake_corpus(monkeypatch, texts[:5], texts[4:])
    assert len(found.held_out) == 1
    assert sorted([*found.train, *found.held_out]) == reviews
    numbers = [{s.split()[1] for s in sum(part, [])} for part in found[1:]]
    assert numbers[0].isdisjoint(numbers[1])


def test_what_sst2_is_measured_on_is_left_out(monkeypatch):
    reviews, texts = numbered(6)
    found = fake_corpus(monkeypatch, texts, measured=["review 3 , sentence 2 ."])
    # Sentences on either side of the gap do not follow each other.
    expected = [*reviews[:3], reviews[3][:2], reviews[3][3:], *reviews[4:]]
    assert sorted([*found.train, *found.held_out]) == expected


def test_long_sentences_are_kept_out_inside_others_too():
    sense = "the movie makes absolutely no sense ."
    slow = "it is a very long film . slow and dull ."
    measured = data.ExcludedTexts(["it 's fun !", sense, slow])
    assert "It's FUN!" in measured
    assert "It's fun, mostly." not in measured
    assert "In short, the movie makes absolutely no sense whatsoever." in measured
    assert "The movie makes, absolutely, no sense" in measured
    assert "The movie makes absolutely no point" not in measured
    assert "The movie makes absolutely no" not in measured
    assert "Slow and dull." in measured
    assert "It is a very long film, and slow." in measured
    assert "It is a very long film." in measured


def test_held_out_sentences_do_not_occur_in_training(monkeypatch):
    said = "The very same sentence is here."
    reviews = [f"{review} {said}" for review in numbered(6)[1]]
    found = fake_corpus(monkeypatch, reviews, held_out=2)
    assert [said in sum(part, []) for part in found[1:]].count(True) == 1


def test_the_embedded_corpus_is_what_classifiers_may_learn_from(tmp_path, monkeypatch):
    parts = [Split([f"{name} is n't bad"], [1]) for name in TextData._fields[1:]]
    texts = TextData("toy", *parts)
    monkeypatch.setattr(data, "load_sentences", lambda *args, **kwargs: texts)
    expected = "toy", [["train isn't bad"]], [["tuning isn't bad"]]
    for source in ("embedded", "auto"):
        assert data.load_corpus(source, data_dir=tmp_path) == expected
    with pytest.raises(NotPreparedError):
        data.load_corpus("tfds", data_dir=tmp_path)


@pytest.mark.parametrize("damage", ["shard cut in a row", "info cut", "info missing"])
@pytest.mark.parametrize("dataset", ["imdb_reviews/plain_text", "glue/sst2"])
def test_a_damaged_set_is_reported(dataset, damage, whole_sets, tmp_path):
    sets = shutil.copytree(whole_sets, tmp_path / "sets")
    apply_damage(damage, sets / dataset)
    for source in ("tfds", "auto"):
        with pytest.raises(DataError, match="is damaged") as caught:
            data.load_corpus(source, data_dir=sets)
        assert f"set in {sets / dataset}" in str(caught.value)


def test_an_unknown_source_is_named():
    with pytest.raises(ValueError, match="`source` must be .* source='imdb'"):
        data.load_corpus("imdb")


@pytest.mark.prepared
def test_nothing_that_sst2_is_measured_on_is_in_the_real_corpus():
    try:
        sst2 = prepared_builder("glue/sst2", "common.data.load_sentences")
        found = data.load_corpus("tfds")
    except NotPreparedError as error:
        pytest.skip(str(error))
    assert sum(map(len, found.train)) > 400_000
    measured = [
        t for s in ("validation", "test") for t in read_texts(sst2, s, "sentence")[0]
    ]
    passages = [*found.train, *found.held_out]
    assert set(map(bare, measured)).isdisjoint(map(bare, itertools.chain(*passages)))
    # Nor inside a longer passage, which its first six words would lead to.
    begins = {}
    for text in measured:
        begins.setdefault(" ".join(clean(text).lower().split()[:6]), []).append(text)
    begins = {begin: of for begin, of in begins.items() if begin.count(" ") == 5}
    for passage in map(" ".join, passages):
        words = passage.lower().split()
        for i in range(len(words) - 5):
            for text in begins.get(" ".join(words[i : i + 6]), []):
                assert bare(text) not in bare(passage)
