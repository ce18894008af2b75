"""q4_denoise_text: the controls on an encoder, what is reported, and its tables."""

import numpy as np
import pytest

from common.data import Split, TextData
from q4_denoise_text import experiments, figures, transfer
from q4_denoise_text.data import SPECIAL_TOKENS, make_tokenizer
from q4_denoise_text.denoise_text import build_denoiser
from tests.q4_denoise_text.test_transfer import SMALL, VOCAB, rows_of


def runs_of(*accuracies):
    return [{"validation": accuracy} for accuracy in accuracies]


def texts_of(train, labels, others, answers):
    train = Split(train, np.array(labels))
    others = Split(others, np.array(answers))
    return TextData("toy", train, others, others)


def test_controls_share_with_the_denoiser_what_their_name_says(monkeypatch):
    denoiser = build_denoiser(VOCAB, **SMALL)
    rows, labels = rows_of(64), np.arange(64) % 2
    monkeypatch.setattr(transfer, "BATCH", 16)
    parts = experiments.Sentences(
        {name: (rows, labels) for name in ("train", "tuning", "validation")}
    )
    used = {}

    def keep(encoder, **options):
        used["encoder"] = [weight.copy() for weight in encoder.get_weights()]
        used.update(options)
        return build(encoder, **options)

    build = experiments.build_classifier
    monkeypatch.setattr(experiments, "build_classifier", keep)
    learned = denoiser.encoder.get_weights()
    transferred = experiments.transferred.__wrapped__
    embeddings = len(denoiser.encoder.get_layer("embedding").get_weights())
    for use, (shared, frozen) in {
        "random, frozen": (0, True),
        "embeddings, frozen": (embeddings, True),
        "denoiser, frozen": (len(learned), True),
        "denoiser, fine-tuned": (len(learned), False),
        "from scratch": (0, False),
    }.items():
        run = transferred(use, "attention", parts, denoiser, "", epochs=1, seed=3)
        equal = [
            np.array_equal(mine, theirs)
            for mine, theirs in zip(used["encoder"], learned, strict=True)
            if np.ptp(theirs) > 0  # biases and scales start equal anyway
        ]
        drawn = [np.ptp(theirs) > 0 for theirs in learned]
        assert sum(equal) == sum(drawn[:shared]), use
        assert used["frozen"] == frozen
        assert set(run) == {"tuning", "validation", "logits"}
    after = denoiser.encoder.get_weights()
    for before, now in zip(learned, after, strict=True):
        np.testing.assert_array_equal(before, now)


def test_a_share_of_the_labels_is_the_same_for_network_and_bag_of_words(monkeypatch):
    seen = []
    monkeypatch.setattr(
        transfer,
        "fit_linear_head",
        lambda classifier, train, tuning: seen.append(train[1].tolist()),
    )
    labels = np.arange(10) % 2
    rows = [np.array([3 + i], "int32") for i in range(10)]
    parts = experiments.Sentences(
        train=(rows, labels), tuning=(rows, labels), validation=(rows, labels)
    )
    denoiser = build_denoiser(VOCAB, **SMALL)
    experiments.transferred.__wrapped__(
        "denoiser, frozen", "linear", parts, denoiser, "", epochs=1, seed=2, share=0.5
    )
    chosen = np.random.default_rng(2).permutation(10)[:5]
    assert seen == [labels[chosen].tolist()]


def test_a_bag_of_words_reads_words_and_the_phrases_it_is_given():
    good, bad = ["a fine film", "fine acting"], ["a dull film", "dull acting"]
    texts = texts_of(good * 3 + bad * 3, [1] * 6 + [0] * 6, good + bad, [1, 1, 0, 0])
    assert experiments.bag_of_words(texts) == 1.0
    unseen = texts_of(good * 3 + bad * 3, [1] * 6 + [0] * 6, ["new words"] * 2, [0, 1])
    assert experiments.bag_of_words(unseen) == 0.5


def test_the_bag_of_words_learns_from_its_share_of_the_labels(monkeypatch):
    texts = texts_of(["good"] * 50 + ["bad"] * 50, [1] * 50 + [0] * 50, ["good"], [1])
    sizes = []

    class Model:
        def fit(self, texts, labels):
            assert [text == "good" for text in texts] == (labels == 1).tolist()
            sizes.append(len(texts))
            return self

        def score(self, *_):
            return 1.0

    monkeypatch.setattr(experiments, "make_pipeline", lambda *_: Model())
    experiments.bag_of_words(texts, share=0.1, seed=1)
    assert set(sizes) == {10}


def test_metrics_have_the_published_names_and_the_mean_of_the_seeds():
    runs = {
        key: runs_of(0.5, 0.5 + 0.1 * i)
        for i, key in enumerate(experiments.METRICS, start=1)
    }
    few = {
        "denoiser, fine-tuned": [0.7, 0.8],
        "from scratch": [0.6, 0.6],
        "bag of words": [0.5, 0.7],
    }
    baselines = {"bag of words": 0.81, "another": 0.1}
    found = experiments.headline_metrics(runs, few, 0.01, baselines)
    assert found.pop("sst2_bag_of_words") == 0.81
    means = {name: value["mean"] for name, value in found.items()}
    assert means == pytest.approx(
        {
            "sst2_random_frozen_linear": 0.55,
            "sst2_random_frozen_attention": 0.6,
            "sst2_frozen_embeddings_attention": 0.65,
            "sst2_frozen_linear": 0.7,
            "sst2_frozen_attention": 0.75,
            "sst2_finetuned": 0.8,
            "sst2_scratch": 0.85,
            "sst2_1percent_finetuned": 0.75,
            "sst2_1percent_scratch": 0.6,
            "sst2_1percent_bag_of_words": 0.6,
        }
    )
    assert found["sst2_finetuned"]["n"] == 2


def test_restoration_is_published_by_its_own_names():
    scores = {
        "token_accuracy": 0.9,
        "corrupted": 0.4,
        "intact": 0.98,
        "error_reduction": 0.3,
        "sentences": 0.1,
    }
    assert experiments.denoising_metrics(scores) == {
        "denoising_corrupted_accuracy": 0.4,
        "denoising_intact_accuracy": 0.98,
        "denoising_error_reduction": 0.3,
        "denoising_sentences": 0.1,
    }


def test_the_sign_test_counts_sentences_on_which_one_network_is_right():
    labels = np.array([1, 1, 0, 0, 1, 0, 1, 1])
    right = np.where(labels == 1, 1.0, -1.0)
    wrong_once = right * [1, 1, 1, 1, 1, 1, 1, -1]
    wrong_thrice = right * [-1, -1, -1, 1, 1, 1, 1, 1]
    names = "one", "other"
    runs = {
        ("one", "attention"): [{"logits": wrong_once}] * 2 + [{"logits": right}],
        ("other", "attention"): [{"logits": wrong_thrice}] * 3,
    }
    table = figures.sign_test_table(runs, labels, names, [4, 5, 6])
    rows = [[c.strip() for c in row.split("|")[1:5]] for row in table.split("\n")[2:]]
    # P(1 or fewer or 3 or more of 4) = 10/16, and P(0 or 3 of 3) = 2/8
    assert rows == [
        ["seed 4", "3", "1", "0.62"],
        ["seed 5", "3", "1", "0.62"],
        ["seed 6", "3", "0", "0.25"],
        ["majority of the seeds", "3", "1", "0.62"],
    ]


def test_a_sentence_is_shown_in_whole_words_with_its_changes_bold():
    tokenizer = make_tokenizer([*SPECIAL_TOKENS, "a", "film", "##ed", "<", "dull"])
    original, other = np.array([3, 4, 5, 6, 0]), np.array([3, 2, 5, 7, 0])
    text = figures.mark_changes(tokenizer, original, other)
    assert text == r"a <b>\[MASK]</b>ed <b>dull</b>"
    text = figures.mark_changes(tokenizer, original, original)
    assert text == "a filmed &lt;"


def test_few_labels_stand_next_to_all_of_them():
    few = {"from scratch": [0.6, 0.7], "bag of words": [0.5]}
    runs = {("from scratch", "attention"): runs_of(0.8, 0.9)}
    table = figures.few_labels_table(few, runs, {"bag of words": 0.81}, [600, 60_000])
    titles, _, scratch, words = table.split("\n")
    assert "600 labelled phrases" in titles and "60,000 labelled phrases" in titles
    assert scratch.index("65.0") < scratch.index("85.0")
    assert words.index("50.0") < words.index("81.0")


def test_figures_draw_the_numbers_they_are_given():
    pieces = [{"loss": [5.0, 4.0], "accuracy": [0.2, 0.3]}] * 2
    left, right = figures.plot_pretraining(pieces, 2e6).axes
    assert [line.get_xdata().tolist() for line in left.lines] == [[2, 4], [6, 8]]
    assert right.lines[1].get_ydata().tolist() == [20, 30]
    scores = [{"corrupted": 0.5, "error_reduction": 0.25}]
    left, right = figures.plot_rates({"masks": ([0.2], scores)}).axes
    assert (left.lines[0].get_xdata()[0], left.lines[0].get_ydata()[0]) == (20, 50)
    assert right.lines[0].get_ydata()[0] == 25
    runs = {
        ("from scratch", "attention"): runs_of(0.7, 0.8),
        ("from scratch", "linear"): runs_of(0.6),
    }
    (axes,) = figures.plot_transfer(runs, {"bag of words": 0.81}).axes
    assert axes.lines[0].get_ydata().tolist() == pytest.approx([75])
    assert axes.lines[-1].get_ydata()[0] == pytest.approx(81)
