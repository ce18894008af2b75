"""tools/pages.py: texts that are filled from results."""

import json

import pytest

from tools import pages


@pytest.fixture
def root(tmp_path):
    results = tmp_path / "q0_toy" / "results"
    results.mkdir(parents=True)
    metrics = {"error": 0.01234, "factor": 2.618, "count": 26473.2}
    metrics["accuracy"] = {"mean": 0.8361, "std": 0.0024, "n": 3}
    (results / "results.json").write_text(json.dumps({"metrics": metrics}))
    return tmp_path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("accuracy | percent", "83.6%"),
        ("accuracy | spread_percent", "83.6 ± 0.2% (3 seeds)"),
        ("error | error", "0.0123"),
        ("factor | fold", "2.62"),
        ("count | whole", "26,473"),
        ("factor | number", "2.618"),
    ],
)
def test_a_metric_is_shown_as_its_filter_says(root, value, expected):
    text = "so {{ q0_toy." + value + " }}.\n"
    assert pages.render(text, root) == f"so {expected}.\n"


def test_figures_are_marked_in_a_text_from_right_to_left(root):
    text = "דיוק {{ q0_toy.accuracy | percent }}"
    assert pages.render(text, root, isolate=True) == "דיוק \u206683.6%\u2069"
    text = "{{ q0_toy.accuracy | spread_percent }}"
    found = pages.render(text, root, isolate=True)
    assert found == "\u206683.6 ± 0.2%\u2069 (3 זרעים)"
    found = pages.render("{{ video }}", root, isolate=True, video="חסר (VIDEO_URL)")
    assert found == "חסר (VIDEO_URL)"


@pytest.mark.parametrize(
    "text",
    ["{{ q0_toy.nothing | percent }}", "{{ q9.accuracy | percent }}", "{{ 1 | odd }}"],
)
def test_what_there_is_not_is_named(root, text):
    with pytest.raises(ValueError, match="nothing|q9|odd"):
        pages.render(text, root)
