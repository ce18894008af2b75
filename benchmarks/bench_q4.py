"""Pre-training tokens a second: ours, the naive way, PyTorch, and how they scale.

```
python -m benchmarks.bench_q4
python -m benchmarks.bench_q4 --quick  # two rounds and no scaling, into build/
```

The denoiser of question 4 trains on the CPU on random tokens in sentences as long as
those that it was pre-trained on. "Ours" is what `pretrain` does: batches of similar
length, the softmax at half of the positions, under `fit`. "Naive" is the same
model on the same sentences padded to one length, with the softmax everywhere. PyTorch
(optional: `pip install torch`) runs the usual loop over the same layers on our
batches, which it is handed ready-made. What counts are real tokens, without padding.
"""

import functools
import json
import statistics
import time
from pathlib import Path

import keras
import numpy as np

from benchmarks import timing
from benchmarks.timing import TORCH
from q4_denoise_text.corpus import MAX_LENGTH, PAD
from q4_denoise_text.denoise_text import build_denoiser
from q4_denoise_text.pretraining import (
    LENGTHS,
    TOKENS,
    Buckets,
    compile_denoiser,
    denoising_batches,
)
from q4_denoise_text.published import RECORD

RESULTS = Path("q4_denoise_text", "results", "bench.json")
FULL = {"rounds": 5, "batches": 24, "scaling": True, "memory": True}
QUICK = {"rounds": 2, "batches": 6, "scaling": False, "memory": False}
VOCAB_SIZE, STEPS = 8_000, 100_000
SCALING_ROUNDS = 3
NAMES = ("ours", "ours, no XLA", "naive", *(["PyTorch"] if TORCH else []))
SCALES = {
    "width": [{"width": width} for width in (64, 128, 256)],
    "length": [{"length": length} for length in (16, 32, 64)],
    "tokens of a batch": [{"tokens": tokens} for tokens in (1_024, 4_096, 16_384)],
}


def measure(plan):
    """Times a pass over the sentences in turns, then ours at other sizes."""
    rows = sentences(plan["batches"])
    runs = {name: contestant(name, rows) for name in NAMES}
    seconds = timing.time_in_turns(runs, "a pass", plan["rounds"])
    results = {"tokens": sum(map(len, rows))} | reduce(seconds, rows)
    results["input_share"] = input_seconds(rows) / statistics.median(seconds["ours"])
    results["mebibytes"] = {
        name: timing.step_mebibytes(passes_of, (name,), plan["batches"])
        for name in NAMES
        if plan["memory"]
    }
    scaling = SCALES if plan["scaling"] else {}
    results["scaling"] = {
        name: [size | {"tokens_per_second": scaled(**size)} for size in sizes]
        for name, sizes in scaling.items()
    }
    return results


def sentences(batches, length=None):
    """Makes the work: rows of random ids that fill so many of our batches.

    Args:
        batches: int.
        length: int, of every row; by default lengths are those of pre-training.
    """
    rng = np.random.default_rng(1)
    if length is None:
        counts = json.loads(RECORD.read_text("utf-8"))["lengths"]
        share = np.array(counts) / sum(counts)
    else:
        share = np.eye(MAX_LENGTH + 1)[length]
    mean = np.arange(len(share)) @ share
    lengths = rng.choice(len(share), round(batches * TOKENS / mean), p=share)
    # Whole batches of every length, so that nobody leaves rows over.
    bucket = np.searchsorted(LENGTHS, lengths)
    kept = []
    for i, size in enumerate(LENGTHS):
        members = np.flatnonzero(bucket == i)
        kept += members[: len(members) // (TOKENS // size) * (TOKENS // size)].tolist()
    return [rng.integers(5, VOCAB_SIZE, lengths[row], dtype="int32") for row in kept]


def contestant(name, rows, **size):
    """Builds a contestant: a function `(size, passes) -> seconds of each pass`."""
    denoiser, dataset, steps = training(name, rows, **size)
    if name == "PyTorch":
        ready = list(dataset.take(steps).as_numpy_iterator())
        return functools.partial(torch_passes, TorchDenoiser(denoiser), ready)
    return functools.partial(keras_passes, denoiser, dataset, steps)


def training(name, rows, width=128, tokens=TOKENS):
    """Returns what a contestant trains: denoiser, endless batches, steps of a pass."""
    keras.utils.set_random_seed(0)
    denoiser = build_denoiser(VOCAB_SIZE, width=width)
    compile_denoiser(denoiser, steps=STEPS, jit_compile=name != "ours, no XLA")
    if name == "naive":
        buckets, share = Buckets(rows, lengths=(MAX_LENGTH,)), {"share": 1.0}
    else:
        buckets, share = Buckets(rows, tokens=tokens), {}
    return denoiser, denoising_batches(buckets, **share), len(buckets)


def passes_of(name):
    """Builds a contestant as `contestant` does, for any number of batches."""
    return lambda batches, passes: contestant(name, sentences(batches))(None, passes)


def keras_passes(denoiser, data, batches, size, passes):
    """Trains a Keras model; returns the seconds of each pass."""
    seconds = timing.fit_steps(denoiser, data, passes * batches)
    return seconds.reshape(passes, batches).sum(axis=1)


def input_seconds(rows):
    """Returns the seconds in which `tf.data` alone makes the batches of a pass."""
    buckets = Buckets(rows)
    data = iter(denoising_batches(buckets))
    for _ in range(len(buckets)):
        next(data)
    start = time.perf_counter()
    for _ in range(len(buckets)):
        next(data)
    return time.perf_counter() - start


def scaled(width=128, length=32, tokens=TOKENS):
    """Times full rows at another size of model or batch, us and PyTorch in turns.

    Returns:
        Dict from a contestant to its tokens a second.
    """
    rows = sentences(4 * tokens // TOKENS or 1, length)
    names = [name for name in ("ours", "PyTorch") if name in NAMES]
    runs = {name: contestant(name, rows, width=width, tokens=tokens) for name in names}
    size = f"width {width}, length {length}, {tokens} tokens a batch"
    seconds = timing.time_in_turns(runs, size, SCALING_ROUNDS)
    done = sum(map(len, rows))
    return {name: done / statistics.median(found) for name, found in seconds.items()}


# PyTorch's contestant.


class TorchDenoiser:
    """The denoiser in PyTorch, with the weights of a Keras one.

    Args:
        denoiser: from `build_denoiser`, with a parallel decoder and no dropout.
    """

    def __init__(self, denoiser):
        import torch

        torch.set_num_threads(timing.CORES)
        torch.set_flush_denormal(True)  # as TensorFlow does
        encoder = denoiser.get_layer("encoder")
        tokens, places = encoder.get_layer("embedding").get_weights()
        self.tokens, self.places = map(self._parameter, (tokens, places))
        names = [layer.name for layer in encoder.layers if "block_" in layer.name]
        blocks = [encoder.get_layer(name) for name in names]
        blocks.append(denoiser.get_layer("decoder"))
        heads = denoiser.arguments["heads"]
        self.blocks = torch.nn.ModuleList([torch_block(b, heads) for b in blocks])
        norms = encoder.get_layer("norm"), denoiser.get_layer("decoder_norm")
        self.norms = [torch_norm(norm) for norm in norms]
        head = denoiser.get_layer("logits")
        self.dense = torch_dense(*head._intermediate_dense.get_weights())
        self.head_norm = torch_norm(head._intermediate_layer_norm)
        self.bias = self._parameter(head._bias.numpy())
        modules = [self.blocks, *self.norms, self.dense, self.head_norm]
        parameters = [p for module in modules for p in module.parameters()]
        self.parameters = [*parameters, self.tokens, self.places, self.bias]
        self.optimizer = torch.optim.AdamW(
            self.parameters, 1e-3, eps=1e-7, weight_decay=0.01, fused=True
        )

    @staticmethod
    def _parameter(array):
        import torch

        return torch.nn.Parameter(torch.tensor(array))

    def logits(self, token_ids, positions):
        """Returns the logits at positions, `(batch, any, vocab_size)`."""
        import torch

        padding = token_ids == PAD
        states = self.tokens[token_ids] + self.places[: token_ids.shape[1]]
        for i, block in enumerate(self.blocks):
            states = block(states, src_key_padding_mask=padding)
            if i >= len(self.blocks) - 2:  # the encoder's last, and the decoder
                states = self.norms[i - len(self.blocks)](states)
        rows = torch.arange(len(token_ids))[:, None]
        states = torch.nn.functional.gelu(self.dense(states[rows, positions]))
        return self.head_norm(states) @ self.tokens.T + self.bias

    def train(self, inputs, targets, weights):
        """Takes one training step; returns the loss."""
        import torch

        logits = self.logits(inputs["token_ids"], inputs["positions"])
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), reduction="none"
        )
        weights = weights.flatten()
        loss = (losses * weights).sum() / weights.sum()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return loss


def torch_dense(kernel, bias):
    """Copies the weights of a Keras `Dense` to PyTorch."""
    import torch

    layer = torch.nn.Linear(*kernel.shape)
    layer.weight.data.copy_(torch.tensor(kernel.T))
    layer.bias.data.copy_(torch.tensor(bias))
    return layer


def torch_norm(norm):
    """Copies a Keras `LayerNormalization` to PyTorch."""
    import torch

    scale, offset = norm.get_weights()
    layer = torch.nn.LayerNorm(len(scale), norm.epsilon)
    layer.weight.data.copy_(torch.tensor(scale))
    layer.bias.data.copy_(torch.tensor(offset))
    return layer


def torch_block(block, heads):
    """Copies a `keras_nlp.layers.TransformerEncoder` to PyTorch."""
    import torch

    norm = torch_norm(block._self_attention_layer_norm)
    width = len(norm.weight)
    layer = torch.nn.TransformerEncoderLayer(
        width,
        heads,
        block.intermediate_dim,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    layer.norm1, layer.norm2 = norm, torch_norm(block._feedforward_layer_norm)
    layer.linear1 = torch_dense(*block._feedforward_intermediate_dense.get_weights())
    layer.linear2 = torch_dense(*block._feedforward_output_dense.get_weights())
    weights = block._self_attention_layer.get_weights()
    # Query, key, value: (width, heads, size); output: (heads, size, width).
    kernels = [kernel.reshape(width, width) for kernel in weights[::2]]
    biases = [bias.reshape(width) for bias in weights[1::2]]
    attention = layer.self_attn
    attention.in_proj_weight.data.copy_(torch.tensor(np.hstack(kernels[:3]).T))
    attention.in_proj_bias.data.copy_(torch.tensor(np.hstack(biases[:3])))
    attention.out_proj = torch.nn.modules.linear.NonDynamicallyQuantizableLinear(
        width, width
    )
    attention.out_proj.weight.data.copy_(torch.tensor(kernels[3].T))
    attention.out_proj.bias.data.copy_(torch.tensor(biases[3]))
    return layer


def torch_passes(denoiser, ready, size, passes):
    """Trains in PyTorch; returns the seconds of each pass."""
    ready = [torch_example(example) for example in ready]
    seconds = []
    for _ in range(passes):
        start = time.perf_counter()
        for example in ready:
            denoiser.train(*example)
        seconds.append(time.perf_counter() - start)
    return np.array(seconds)


def torch_example(example):
    """Returns a batch of ours as PyTorch's tensors."""
    import torch

    inputs, targets, weights = example
    inputs = {name: torch.tensor(ids).long() for name, ids in inputs.items()}
    return inputs, torch.tensor(targets).long(), torch.tensor(weights)


# What is made of the seconds.


def reduce(seconds, rows):
    """Reduces the seconds of passes to tokens a second and ratios."""
    tokens = sum(map(len, rows))
    results = {
        "tokens_per_second": {
            n: tokens / statistics.median(s) for n, s in seconds.items()
        }
    }
    for name, key in {"naive": "vs_naive", "PyTorch": "vs_torch"}.items():
        if name in seconds:
            results[key] = timing.ratio(seconds[name], seconds["ours"])
    return results


def load_results(path=RESULTS):
    """Returns what a run of this benchmark has written."""
    return timing.load_results(path)


def headline_metrics(results):
    """Picks the metrics that stand for the whole benchmark.

    Args:
        results: what `load_results` returns.

    Returns:
        Dict of numbers: how many times as many tokens a second as the naive way and,
        where it was there, as PyTorch.
    """
    keys = [key for key in ("vs_naive", "vs_torch") if key in results]
    return {f"tokens_per_second_{key}": results[key]["median"] for key in keys}


def report(results):
    """Formats the results as Markdown."""
    speeds = [{"name": n, "speed": s} for n, s in results["tokens_per_second"].items()]
    ratios = {"vs_naive": "ours / naive", "vs_torch": "ours / PyTorch"}
    ratios = {key: title for key, title in ratios.items() if key in results}
    parts = [
        f"Real tokens a second of pre-training, median of {results['rounds']} rounds",
        timing.table({"speed": "tokens a second"}, speeds, {"": "name"}),
        "Tokens a second, ratios: median (min to max) of the rounds",
        timing.table(ratios, [results | {"name": "all"}], {"": "name"}),
        f"`tf.data` alone takes {100 * results['input_share']:.0f} % of a step's time.",
    ]
    if results.get("mebibytes"):
        memory = [{"name": n, "memory": m} for n, m in results["mebibytes"].items()]
        parts += [
            "MiB at the peak of a pass, what is loaded before left out; XLA's compiler "
            "included",
            timing.table({"memory": "MiB"}, memory, {"": "name"}),
        ]
    for name, sizes in results["scaling"].items():
        key = next(iter(sizes[0]))
        there = {
            who: f"{who}, tokens a second" for who in sizes[0]["tokens_per_second"]
        }
        parts.append(timing.table(there, sizes, {name: key}, "tokens_per_second"))
    return "\n\n".join(parts)


if __name__ == "__main__":
    description = __doc__.splitlines()[0]
    timing.main(description, RESULTS, measure, report, full=FULL, quick=QUICK)
