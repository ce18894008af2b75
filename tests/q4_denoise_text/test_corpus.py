"""q4_denoise_text/corpus.py: text made plain, passages, token ids, the vocabulary."""

import shutil
from unicodedata import combining, normalize

import numpy as np
import pytest

from common.archives import DataError
from common.data import Split, TextData
from common.prepared import NotPreparedError, prepared_builder, read_texts
from q4_denoise_text import corpus
from q4_denoise_text.corpus import (
    MAX_LENGTH,
    SPECIAL_TOKENS,
    bare,
    clean,
    learn_vocabulary,
    make_tokenizer,
    tokenize,
)
from tests.tiny_sets import apply_damage, prepare_tiny_sets

UNKNOWN = SPECIAL_TOKENS.index("[UNK]")

# -- Plain text ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a <i>fine</i> film", "a fine film"),
        ("Good.<br /><br />Bad.", "Good. Bad."),
        ("Good.<BR>Bad.<br/>End", "Good. Bad. End"),
        ('<a href="x.html">a link</a>', "a link"),
        ("", ""),
        ("<p></p>", ""),
    ],
)
def test_tags_go(text, plain):
    assert clean(text) == plain


@pytest.mark.parametrize(
    "text", ["I <3 it", "3 < 4", "5 > 4", "a -> b", "a < b and c > b"]
)
def test_less_and_greater_signs_that_make_no_tag_stay(text):
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("caf&eacute; &#233; &#xe9;", "café é é"),
        ("&quot;fine&quot; isn&#39;t it", '"fine" isn\'t it'),
        ("a&nbsp;&nbsp;b", "a b"),
        ("AT&T & co", "AT&T & co"),
        ("1 &lt; 2", "1 < 2"),
        ("1 &lt; 2 and 3 &gt; 2", "1 < 2 and 3 > 2"),
    ],
)
def test_entities_become_what_they_stand_for(text, plain):
    assert clean(text) == plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("it does n't , is n't and ca n't", "it doesn't , isn't and can't"),
        ("wo n't", "won't"),
        ("-lrb- really -rrb-", "( really )"),
        (r"24\/7 action\/adventure", "24/7 action/adventure"),
    ],
)
def test_penn_treebank_tokens_become_running_text(text, plain):
    assert clean(text) == plain


@pytest.mark.parametrize(
    "text",
    ["It doesn't, really (no).", "n'th", "a well-made film", "café", "映画 😀", "“no”"],
)
def test_running_text_stays(text):
    assert clean(text) == text


def test_white_space_becomes_single_blanks():
    assert clean(" \t a \r\n\n b\u00a0\u2003c  <br /> \n d ") == "a b c d"
    assert clean(" \n\t ") == ""


# -- Bare text -----------------------------------------------------------------------


def test_bare_leaves_letters_and_digits():
    assert bare("3 o'clock -- (2001)_!?\n") == "3oclock2001"
    assert bare("café, 映画; ünd") == "café映画ünd"
    assert bare(" \t.,'_-") == bare("") == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It is n't bad , really .", "it isn't bad, really."),
        ("A Fine Film", "a fine film"),
        ("well-made", "well made"),
    ],
)
def test_bare_texts_are_equal_whatever_their_spelling(one, other):
    assert bare(one) == bare(other)
    assert bare(one) != bare(other + " 2")


# -- Token ids -----------------------------------------------------------------------

PIECES = "the film is good it ' s bad , ! ##s ##ly שלום 映 😀".split()
VOCABULARY = [*SPECIAL_TOKENS, *PIECES]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(VOCABULARY)


def ids(pieces):
    return [VOCABULARY.index(piece) for piece in pieces.split()]


def test_a_vocabulary_may_be_a_file(tokenizer, tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    (found,) = tokenize(make_tokenizer(str(path)), ["the films שלום!"])
    assert found.tolist() == ids("the film ##s שלום !")


def test_token_ids_are_those_of_the_pieces(tokenizer):
    cases = {
        "The FILM is gOOd": "the film is good",
        "films, badly!": "film ##s , bad ##ly !",
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
    }
    texts = [form for text in cases for form in (text, text.encode())]
    found = tokenize(tokenizer, texts)
    assert len(found) == len(texts)
    assert {row.dtype for row in found} == {np.dtype("int32")}
    for text, as_string, as_bytes in zip(cases, found[::2], found[1::2], strict=True):
        assert as_string.tolist() == as_bytes.tolist() == ids(cases[text]), text


def test_a_text_without_tokens_becomes_one_unknown_token(tokenizer):
    texts = ["good", "", b"", " ", "\n\t", "\x00", "\x07\x1b", "\u00a0", "film"]
    found = [row.tolist() for row in tokenize(tokenizer, texts)]
    assert found == [ids("good"), *[[UNKNOWN]] * 7, ids("film")]


def test_bytes_that_are_no_utf8_do_no_harm(tokenizer):
    broken = [b"good \xff film", b"good \xc3 film", b"good \xed\xa0\x80 film"]
    found = tokenize(tokenizer, ["bad", *broken, b"\xff", "bad"])
    for row in found[1:4]:
        assert row[[0, -1]].tolist() == ids("good film")
        assert set(row[1:-1]) <= {UNKNOWN}
    assert set(found[4]) == {UNKNOWN}
    assert found[0].tolist() == found[5].tolist() == ids("bad")


def test_long_texts_keep_their_first_tokens(tokenizer):
    words = ["good"] * (MAX_LENGTH - 1) + ["film"] + ["bad"] * 1000
    texts = [" ".join(words), " ".join(words[:MAX_LENGTH]), "film is good"]
    found = [row.tolist() for row in tokenize(tokenizer, texts)]
    assert found[0] == found[1] == ids(texts[1])
    assert found[2] == ids("film is good")
    short = tokenize(tokenizer, ["films is good", "bad"], max_length=2)
    assert [row.tolist() for row in short] == [ids("film ##s"), ids("bad")]


def test_text_cannot_spell_special_tokens(tokenizer):
    (found,) = tokenize(tokenizer, ["[PAD] [MASK] film [START] [END] [mask] [pad]"])
    special = [token for token in found if token < len(SPECIAL_TOKENS)]
    assert set(special) == {UNKNOWN}
    assert VOCABULARY.index("film") in found


def test_many_texts_keep_their_order_and_number(tokenizer):
    expected = [ids("good"), ids("bad film"), [UNKNOWN]] * 6_670
    found = tokenize(tokenizer, np.array(["good", "bad film", ""] * 6_670))
    assert [row.tolist() for row in found] == expected


def test_no_texts_have_no_token_ids(tokenizer):
    assert tokenize(tokenizer, []) == []


# -- The vocabulary ------------------------------------------------------------------

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
    return learn_vocabulary(TRAINING, size=85)


def test_special_tokens_come_first_and_no_piece_twice(vocabulary):
    assert vocabulary[: len(SPECIAL_TOKENS)] == SPECIAL_TOKENS
    assert len(set(vocabulary)) == len(vocabulary)
    assert not set(vocabulary[len(SPECIAL_TOKENS) :]) & set(SPECIAL_TOKENS)


def without_accents(text):
    return "".join(c for c in normalize("NFD", text) if not combining(c))


def test_pieces_occur_in_training(vocabulary):
    text = " ".join(TRAINING).lower()
    text += without_accents(text)
    pieces = [piece.removeprefix("##") for piece in vocabulary[len(SPECIAL_TOKENS) :]]
    assert all(pieces)
    assert all(piece in text for piece in pieces)
    assert set("".join(pieces)) >= set("thefilm7!,.")


def test_common_words_are_pieces_of_their_own(vocabulary):
    assert {"the", "was", "and"} <= set(vocabulary)


def test_about_as_many_pieces_as_asked_for(vocabulary):
    assert 70 <= len(vocabulary) <= 95
    assert 50 <= len(learn_vocabulary(TRAINING, size=60)) <= 70


def test_training_texts_have_no_unknown_tokens_and_other_characters_are(vocabulary):
    texts = ["the zzz film", "the", "film", *TRAINING]
    found, the, film, *known = tokenize(make_tokenizer(vocabulary), texts)
    assert found.tolist() == [*the, UNKNOWN, *film]
    assert all(UNKNOWN not in row for row in (the, film, *known))


def test_a_vocabulary_depends_on_its_texts_alone(vocabulary):
    assert learn_vocabulary(TRAINING, size=85) == vocabulary


# -- The corpus ----------------------------------------------------------------------


class FakeSet:
    """A prepared set of texts, as `read_texts` is handed it."""

    def __init__(self, **splits):
        self.splits = splits


def fake_corpus(monkeypatch, imdb, sst2, held_out=1):
    monkeypatch.setattr(corpus, "HELD_OUT", held_out)
    sets = {"imdb_reviews/plain_text": imdb, "glue/sst2": sst2}
    monkeypatch.setattr(corpus, "prepared_builder", lambda name, *wanted: sets[name])
    monkeypatch.setattr(
        corpus, "read_texts", lambda builder, split, key: (builder.splits[split], None)
    )
    return corpus.load_corpus("tfds")


def numbered_reviews(count):
    return [
        " ".join(f"Sentence {i} of review {n} is here." for i in range(4))
        for n in range(count)
    ]


def test_reviews_are_held_out_whole_and_taken_once(monkeypatch):
    reviews = numbered_reviews(8)
    imdb = FakeSet(train=reviews[:5], unsupervised=reviews[4:])
    found = fake_corpus(monkeypatch, imdb, FakeSet(validation=[], test=[]))
    assert len(found.held_out) == 4  # the sentences of one review
    everything = [*found.train, *found.held_out]
    assert sorted(everything) == sorted(s for r in reviews for s in split_up(r))
    numbers = [{s.split()[4] for s in part} for part in found[1:]]
    assert numbers[0].isdisjoint(numbers[1])


def test_sentences_of_one_or_two_words_are_not_taken(monkeypatch):
    reviews = [f"Well. Film {n}! Just long enough {n}." for n in range(4)]
    imdb = FakeSet(train=reviews, unsupervised=[])
    found = fake_corpus(monkeypatch, imdb, FakeSet(validation=[], test=[]))
    everything = sorted([*found.train, *found.held_out])
    assert everything == [f"Just long enough {n}." for n in range(4)]


def split_up(review):
    return [f"{sentence}." for sentence in review.rstrip(".").split(". ")]


def test_what_sst2_judges_is_left_out(monkeypatch):
    reviews = numbered_reviews(6)
    sst2 = FakeSet(validation=["sentence 2 of review 3 is here ."], test=["Nowhere"])
    imdb = FakeSet(train=reviews, unsupervised=[])
    found = fake_corpus(monkeypatch, imdb, sst2)
    everything = [*found.train, *found.held_out]
    assert len(everything) == 4 * 6 - 1
    assert "Sentence 2 of review 3 is here." not in everything


@pytest.mark.parametrize(
    ("text", "kept_out"),
    [
        ("It's FUN!", True),
        ("It's fun, mostly.", False),
        ("In short, the movie makes absolutely no sense whatsoever.", True),
        ("The movie makes, absolutely, no sense", True),
        ("The movie makes absolutely no point", False),
        ("The movie makes absolutely no", False),
    ],
)
def test_long_sentences_are_kept_out_inside_others_too(text, kept_out):
    judged = corpus.Judged(["it 's fun !", "the movie makes absolutely no sense ."])
    assert (text in judged) == kept_out


def test_held_out_sentences_do_not_occur_in_training(monkeypatch):
    said = "The very same sentence is here."
    reviews = [f"{review} {said}" for review in numbered_reviews(6)]
    imdb = FakeSet(train=reviews, unsupervised=[])
    found = fake_corpus(monkeypatch, imdb, FakeSet(validation=[], test=[]), 2)
    assert [said in part for part in found[1:]].count(True) == 1


def test_the_embedded_corpus_is_what_classifiers_may_train_and_tune_on(monkeypatch):
    parts = [
        Split(np.array([f"{name} is n't bad"], dtype=object), np.array([1]))
        for name in ("train", "tuning", "validation")
    ]
    texts = TextData("toy", *parts)
    monkeypatch.setattr(corpus, "load_sentences", lambda *args, **kwargs: texts)
    found = corpus.load_corpus("embedded")
    assert (found.train.tolist(), found.held_out.tolist()) == (
        ["train isn't bad"],
        ["tuning isn't bad"],
    )


def test_auto_falls_back_on_the_embedded_corpus(monkeypatch):
    def missing(*args):
        raise NotPreparedError("not prepared")

    monkeypatch.setattr(corpus, "prepared_builder", missing)
    with pytest.raises(NotPreparedError):
        corpus.load_corpus("tfds")
    parts = [Split(np.array(["a film"], dtype=object), np.array([1]))] * 3
    texts = TextData("toy", *parts)
    monkeypatch.setattr(corpus, "load_sentences", lambda *args, **kwargs: texts)
    assert corpus.load_corpus("auto").name == "toy"


@pytest.fixture(scope="module")
def whole_sets(tmp_path_factory):
    return prepare_tiny_sets(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("damage", ["shard cut in a row", "info cut", "info missing"])
@pytest.mark.parametrize("dataset", ["imdb_reviews/plain_text", "glue/sst2"])
def test_a_damaged_set_is_reported(dataset, damage, whole_sets, tmp_path):
    sets = shutil.copytree(whole_sets, tmp_path / "sets")
    apply_damage(damage, sets / dataset)
    for source in ("tfds", "auto"):
        with pytest.raises(DataError, match="is damaged") as caught:
            corpus.load_corpus(source, data_dir=sets)
        assert f"set in {sets / dataset}" in str(caught.value)


def test_an_unknown_source_is_named():
    with pytest.raises(ValueError, match="`source` must be .* source='imdb'"):
        corpus.load_corpus("imdb")


@pytest.mark.prepared
def test_nothing_that_sst2_judges_is_in_the_real_corpus():
    try:
        sst2 = prepared_builder("glue/sst2", "common.data.load_sentences")
        found = corpus.load_corpus("tfds")
    except NotPreparedError as error:
        pytest.skip(str(error))
    assert len(found.train) > 400_000
    judged = [
        t for s in ("validation", "test") for t in read_texts(sst2, s, "sentence")[0]
    ]
    assert set(map(bare, judged)).isdisjoint(map(bare, found.train))
    # Nor inside a longer passage, which its first six words would lead to.
    begins = {}
    for text in judged:
        begins.setdefault(" ".join(clean(text).lower().split()[:6]), []).append(text)
    begins = {begin: of for begin, of in begins.items() if begin.count(" ") == 5}
    for passage in found.train:
        words = passage.lower().split()
        for i in range(len(words) - 5):
            for text in begins.get(" ".join(words[i : i + 6]), []):
                assert bare(text) not in bare(passage)
