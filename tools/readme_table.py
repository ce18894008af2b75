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
        ("dev_accuracy_elman_full", "Elman, full BPTT: SST-2 accuracy", PERCENT),
        ("dev_accuracy_elman_best_t", "Elman, best t: SST-2 accuracy", PERCENT),
        ("dev_accuracy_lstm", "LSTM: SST-2 accuracy", PERCENT),
        ("dev_accuracy_bag_of_words", "Bag of words: SST-2 accuracy", PERCENT),
        ("max_gradient_beyond_cut", "Largest gradient beyond the cut", NUMBER),
        ("speedup_T512_t16", "Speed-up by truncation, T = 512, t = 16", TIMES),
        ("ideal_speedup_T512_t16", "The same, ideally", TIMES),
        ("torch_ratio_T512_t16", "PyTorch's time over ours, same work", TIMES),
    ],
    "q2_reset_cell": [
        ("overfit_accuracy", "Reset cell on 32 sentences learned by heart", PERCENT),
        ("parity_accuracy_400_reset", "Parity at 400 steps: reset cell", PERCENT),
        ("sum_fvu_400_reset", "Sums at 400 steps, unexplained: reset cell", PERCENT),
        ("sum_fvu_400_elman", "The same, Elman", PERCENT),
        (
            "prefix_swap_max_change_reset",
            "Change when all before a reset is swapped: reset cell",
            SHORT,
        ),
        ("prefix_swap_max_change_elman", "The same, Elman", SHORT),
        ("dev_accuracy_reset", "Reset cell: SST-2 accuracy", PERCENT),
        ("dev_accuracy_elman", "Elman, equal parameters: SST-2 accuracy", PERCENT),
        ("dev_accuracy_gru", "GRU, equal parameters: SST-2 accuracy", PERCENT),
        ("speed_vs_keras_gru", "Keras GRU's time over ours, T = 256", TIMES),
        ("time_vs_simple_rnn", "Our time over Keras SimpleRNN's, T = 256", TIMES),
        ("time_vs_simple_rnn_xla", "The same, both compiled with XLA", TIMES),
    ],
    "q3_inverse_ae": [
        ("dense_mse", "Fully connected, 32 numbers: pixel error", ERROR),
        ("dense_plain_mse", "The same network without inversion", ERROR),
        ("dense_local_fvu_max", "Its worst layer's inverse, unexplained", PERCENT),
        ("dense_plain_local_fvu_max", "The same, without inversion", PERCENT),
        ("conv_mse", "Fully convolutional, 32 numbers: pixel error", ERROR),
        ("conv_plain_mse", "The same network without inversion", ERROR),
        ("conv_local_fvu_max", "Its worst layer's inverse, unexplained", PERCENT),
        ("conv_plain_local_fvu_max", "The same, without inversion", PERCENT),
        ("pca_mse", "PCA, 32 numbers: pixel error", ERROR),
        ("dense_inversion_time", "Time of inversion, fully connected", TIMES),
        ("conv_inversion_time", "Time of inversion, fully convolutional", TIMES),
    ],
    "q4_denoise_text": [
        ("overfit_token_accuracy", "64 sentences learned by heart", PERCENT),
        ("heldout_corrupted_accuracy", "New text: corrupted tokens restored", PERCENT),
        ("heldout_error_reduction", "New text: errors removed", PERCENT),
        ("sst2_frozen_linear", "Frozen denoiser, linear head: SST-2", PERCENT),
        ("sst2_random_frozen_linear", "The same, random encoder", PERCENT),
        ("sst2_frozen_attention", "Frozen denoiser, attention head: SST-2", PERCENT),
        ("sst2_random_frozen_attention", "The same, random encoder", PERCENT),
        ("sst2_finetuned", "Denoiser fine-tuned: SST-2", PERCENT),
        ("sst2_scratch", "The same network from scratch: SST-2", PERCENT),
        ("sst2_bag_of_words", "Bag of words: SST-2", PERCENT),
        ("tokens_per_second_vs_naive", "Tokens a second, over the naive way", TIMES),
        ("tokens_per_second_vs_torch", "Tokens a second, over PyTorch", TIMES),
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
