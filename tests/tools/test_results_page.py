"""tools/results_page.py: README.md, docs/ and answers/ follow from the results."""

import json

import pytest

from tools import results_page

METRICS = {"accuracy": {"mean": 0.8193, "std": 0.0041, "n": 5}, "gradient": 0.0}
TABLE = "| Accuracy | {{ q1_tbptt.accuracy | spread_percent }} |\n"


@pytest.fixture
def repository(tmp_path):
    """A repository with a README, templates, and one question's results."""
    (tmp_path / "q1_tbptt" / "results").mkdir(parents=True)
    write(tmp_path, "results", {"metrics": METRICS})
    write(tmp_path, "bench", {"headline": {"speedup": 2.714}})
    (tmp_path / "README.md").write_text(
        "Before\n\n<!-- findings -->\n<!-- /findings -->\n\n"
        "<!-- results -->\nold\n<!-- /results -->\n\nAfter\n"
    )
    templates = tmp_path / "docs" / "templates"
    templates.mkdir(parents=True)
    (templates / "grid.md").write_text("It is {{ q1_tbptt.accuracy | percent }}.\n")
    (templates / "tables.md").write_text(TABLE)
    (templates / "results.md").write_text("{{ q1_tbptt.speedup | fold }} times\n")
    for language in ("en", "he"):
        text = f"---\ntitle: T\nsubtitle: S\nlang: {language}\n---\n\n"
        text += "![x](q1_tbptt/results/x.png)\n\n```python\nx = 1\n```\n\n"
        text += "{% if video %}Video{% endif %}{{ q1_tbptt.gradient | number }}\n"
        (templates / f"answers.{language}.md").write_text(text)
    return tmp_path


def write(root, name, content):
    path = root / "q1_tbptt" / "results" / f"{name}.json"
    path.write_text(json.dumps(content))


def test_files_are_written(repository):
    results_page.main(repository)
    assert (repository / "README.md").read_text() == (
        "Before\n\n<!-- findings -->\nIt is 81.9%.\n<!-- /findings -->\n\n"
        "<!-- results -->\n| Accuracy | 81.9 ± 0.4% (5 seeds) |\n<!-- /results -->"
        "\n\nAfter\n"
    )
    assert (repository / "docs" / "results.md").read_text() == "2.71 times\n"
    answers = repository / "answers"
    code = "```python\nx = 1\n```\n"
    english = f"# T: S\n\n![x](../q1_tbptt/results/x.png)\n\n{code}\n0\n"
    assert (answers / "answers.en.md").read_text("utf-8") == english
    hebrew = (answers / "answers.he.md").read_text("utf-8")
    assert hebrew.startswith('<div dir="rtl">\n\n# T: S\n')
    assert f'<div dir="ltr">\n\n{code}\n</div>\n' in hebrew
    assert hebrew.endswith(
        "\N{LEFT-TO-RIGHT ISOLATE}0\N{POP DIRECTIONAL ISOLATE}\n\n</div>\n"
    )


def test_what_is_missing_is_named(repository):
    write(repository, "results", {"metrics": {}})
    with pytest.raises(ValueError, match="accuracy"):
        results_page.main(repository)
    write(repository, "results", {"metrics": METRICS})
    (repository / "README.md").write_text("no block")
    with pytest.raises(ValueError, match="<!-- findings -->"):
        results_page.main(repository)
