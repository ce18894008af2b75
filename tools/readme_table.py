"""Writes into README.md what follows from the results: the findings and the table.

```
python -m tools.readme_table          # writes them
python -m tools.readme_table --check  # exits with 1 if README.md says otherwise
```
"""

import json
import re
import sys
from pathlib import Path

from tools import pages
from tools.pages import ERROR, NUMBER, PERCENT, SHORT, TIMES, show

ROOT = Path(__file__).resolve().parents[1]
FINDINGS = ROOT / "docs" / "findings.md"

ROWS = {
    "q1_tbptt": [
        ("max_gradient_beyond_cut", "Largest gradient beyond the cut", NUMBER),
        ("dev_accuracy_elman_full", "Elman, full BPTT: SST-2 accuracy", PERCENT),
        ("dev_accuracy_elman_best_t", "Elman, truncated to the best t", PERCENT),
        ("elman_best_t", "The best t by the tuning sentences, in steps", NUMBER),
        ("dev_accuracy_lstm", "LSTM, best t likewise: SST-2 accuracy", PERCENT),
        ("dev_accuracy_bag_of_words", "Bag of words: SST-2 accuracy", PERCENT),
        ("review_accuracy_t64", "Long reviews: accuracy with t = 64", PERCENT),
        ("review_accuracy_t_full", "The same, full BPTT", PERCENT),
        ("review_accuracy_t_full_clipped", "The same, full BPTT, clipped", PERCENT),
        ("review_accuracy_bag_of_words", "The same, bag of words", PERCENT),
        (
            "speedup_T512_t16",
            "Time of a step at T = 512: full BPTT over t = 16",
            TIMES,
        ),
        (
            "ideal_speedup_T512_t16",
            "The same, if a step back cost just two steps forward",
            TIMES,
        ),
        ("torch_ratio_T512_t16", "The same at t = 16: PyTorch over ours", TIMES),
    ],
    "q2_reset_cell": [
        ("overfit_accuracy", "32 sentences learned by heart: reset cell", PERCENT),
        ("parity_accuracy_400_reset", "Parity at 400 steps: reset cell", PERCENT),
        ("parity_accuracy_400_elman", "The same, Elman", PERCENT),
        (
            "sum_fvu_400_reset",
            "Sums at 400 steps, variance unexplained: reset cell",
            PERCENT,
        ),
        ("sum_fvu_400_elman", "The same, Elman", PERCENT),
        ("sum_fvu_400_gru", "The same, GRU", PERCENT),
        ("sum_fvu_400_gru_twice", "The same, GRU of twice the parameters", PERCENT),
        (
            "prefix_swap_max_change_reset",
            "Change of the sums when all before a reset is swapped: reset cell",
            SHORT,
        ),
        ("prefix_swap_max_change_elman", "The same, Elman", SHORT),
        (
            "prefix_swap_max_change_gru_twice",
            "The same, GRU of twice the parameters",
            SHORT,
        ),
        ("dev_accuracy_reset", "Reset cell: SST-2 accuracy", PERCENT),
        ("dev_accuracy_elman", "Elman, equal parameters: SST-2 accuracy", PERCENT),
        ("dev_accuracy_gru", "GRU, equal parameters: SST-2 accuracy", PERCENT),
        (
            "speed_vs_keras_gru",
            "Time of a step at T = 256: Keras GRU over ours",
            TIMES,
        ),
        ("time_vs_simple_rnn", "The same: ours over Keras SimpleRNN", TIMES),
        ("time_vs_simple_rnn_xla", "The same, both compiled with XLA", TIMES),
    ],
    "q3_inverse_ae": [
        (
            "dense_local_fvu_max",
            "Fully connected: variance that the worst inverse leaves unexplained",
            PERCENT,
        ),
        ("dense_plain_local_fvu_max", "The same, trained without inversion", PERCENT),
        ("dense_mse", "Fully connected: pixel error", ERROR),
        ("dense_plain_mse", "The same, trained without inversion", ERROR),
        (
            "conv_local_fvu_max",
            "Fully convolutional: variance that the worst inverse leaves unexplained",
            PERCENT,
        ),
        ("conv_plain_local_fvu_max", "The same, trained without inversion", PERCENT),
        ("conv_mse", "Fully convolutional: pixel error", ERROR),
        ("conv_plain_mse", "The same, trained without inversion", ERROR),
        ("pca_mse", "PCA: pixel error", ERROR),
        (
            "dense_inversion_time",
            "Fully connected: time of a step with inversion over one without",
            TIMES,
        ),
        ("conv_inversion_time", "The same, fully convolutional", TIMES),
    ],
    "q4_denoise_text": [
        (
            "overfit_token_accuracy",
            "64 sentences learned by heart: tokens right",
            PERCENT,
        ),
        (
            "heldout_corrupted_accuracy",
            "New text, milder noise than in training: wrong tokens restored",
            PERCENT,
        ),
        ("heldout_bigrams_corrupted_accuracy", "The same, bigrams", PERCENT),
        (
            "heldout_error_reduction",
            "New text, milder noise: errors removed, new ones counted",
            PERCENT,
        ),
        (
            "heldout_training_noise_corrupted_accuracy",
            "New text, noise of training: wrong tokens restored",
            PERCENT,
        ),
        (
            "heldout_training_noise_error_reduction",
            "New text, noise of training: errors removed, new ones counted",
            PERCENT,
        ),
        (
            "sst2_frozen_linear",
            "Denoiser, frozen, linear head: SST-2 accuracy",
            PERCENT,
        ),
        ("sst2_random_frozen_linear", "The same, random encoder", PERCENT),
        (
            "sst2_frozen_attention",
            "Denoiser, frozen, attention head: SST-2 accuracy",
            PERCENT,
        ),
        ("sst2_random_frozen_attention", "The same, random encoder", PERCENT),
        (
            "sst2_frozen_embeddings_attention",
            "The same, random blocks on the denoiser's embeddings",
            PERCENT,
        ),
        ("sst2_finetuned", "Denoiser, fine-tuned: SST-2 accuracy", PERCENT),
        ("sst2_scratch", "The same, from scratch", PERCENT),
        ("sst2_scratch_linear", "The same, from scratch, linear head", PERCENT),
        ("sst2_bag_of_words", "Bag of words: SST-2 accuracy", PERCENT),
        (
            "tokens_per_second_vs_naive",
            "Tokens a second in pre-training, over padded rows and a full softmax",
            TIMES,
        ),
        ("tokens_per_second_vs_torch", "The same, over PyTorch", TIMES),
    ],
}


def table(rows=ROWS, root=ROOT):
    """Builds the table.

    Args:
        rows: Dict from question to its rows: metric, label, style.
        root: Folder of the questions.

    Returns:
        The table as Markdown.

    Raises:
        OSError: If there is no results file.
        ValueError: If it lacks a metric; the message names it.
    """
    lines = ["| Question | Measure | Result |", "|---|---|---|"]
    for question, entries in rows.items():
        path = root / question / "results" / "results.json"
        metrics = json.loads(path.read_text("utf-8"))["metrics"]
        for name, label, style in entries:
            if name not in metrics:
                raise ValueError(f"{path} has no metric {name!r}")
            shown = show(metrics[name], style)
            lines.append(f"| [{question}]({question}) | {label} | {shown} |")
    return "\n".join(lines) + "\n"


def fill(readme, blocks):
    """Replaces what stands between `<!-- name -->` and `<!-- /name -->`.

    Args:
        readme: str.
        blocks: Dict from a name to the new text.

    Returns:
        The new text.

    Raises:
        ValueError: If there is no such block.
    """
    for name, text in blocks.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        block = re.compile(f"(?<={begin}).*?(?={end})", re.DOTALL)
        readme, found = block.subn(lambda _, text=text: text, readme)
        if not found:
            raise ValueError(f"README.md has no <!-- {name} --> block")
    return readme


def main(argv=None, rows=ROWS, root=ROOT):
    """Writes what follows from the results, or checks it; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    readme = root / "README.md"
    try:
        old = readme.read_text("utf-8")
        findings = pages.render(FINDINGS.read_text("utf-8"), root)
        new = fill(old, {"findings": findings, "results": table(rows, root)})
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if "--check" not in argv:
        readme.write_text(new, "utf-8")
    elif old != new:
        print(
            "error: README.md disagrees with the results files; "
            "python -m tools.readme_table writes what follows from them",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
