"""Question 4: pre-training of the denoiser, compared with PyTorch.

`python -m benchmarks.bench_q4` writes q4_denoise_text/results/bench.json.

The denoiser trains on the CPU on random tokens. Steps of one shape get ready-made
batches, ours under `fit` and PyTorch in a loop over the same layers from the same
weights. "A pass" is pre-training as `pretrain` does it: sentences as long as those of
the published pre-training, batched by length, the softmax at half of the positions.
There ours corrupts the sentences while it trains, and PyTorch still gets ready-made
batches. An ablation pads all sentences to one length and takes the softmax everywhere.
"""

import functools
import json

import keras
import numpy as np

from benchmarks import timing
from benchmarks.timing import OURS, torch
from q4_denoise_text.corpus import MAX_LENGTH, PAD
from q4_denoise_text.denoise_text import build_denoiser
from q4_denoise_text.pretraining import (
    LENGTHS,
    PREDICTED,
    TOKENS,
    Buckets,
    compile_denoiser,
    denoising_batches,
)
from q4_denoise_text.published import RECORD

QUESTION = "q4_denoise_text"
PLAN = {
    "rounds": 5,
    "works": [(1, 32), (8, 16), (8, 32), (32, 32), (128, 32), (512, 32)],
    "batches": 12,
    "memory": [(128, 32)],
}
VOCAB_SIZE, WIDTH, DEPTH, HEADS = 8_000, 128, 4, 4
STEPS = 100_000  # of the whole training, for its learning rate
SHORT = 1_024  # tokens of a step up to which several run in an execution of `fit`
SAME = [OURS, "ours, no XLA", *timing.PYTORCH]
ABLATION = "one length and softmax everywhere, XLA"


def measure(plan, peak):
    """Times steps, then passes; returns rows and headline."""
    rows = []
    for batch, length in plan["works"]:
        size = {"batch": batch, "length": length}
        row = timing.measure_row(
            build,
            SAME,
            size,
            work=f"batch {batch}, {length} tokens",
            rounds=plan["rounds"],
            memory=(batch, length) in plan["memory"],
            gflop=1e-9 * flops(**size),
            peak=peak,
        )
        rows.append(row)
    row = measure_pass(plan, peak)
    return {"tables": [rows, [row]], "headline": headline(row)}


def measure_pass(plan, peak):
    """Times passes over sentences of mixed lengths; returns a row."""
    texts = mixed_sentences(plan["batches"])
    buckets = Buckets(texts)
    gflop = 1e-9 * sum(
        count * flops(TOKENS // array.shape[1], array.shape[1])
        for array, count in zip(buckets.arrays, buckets.batches, strict=True)
    )
    return timing.measure_row(
        build_pass,
        [*SAME, ABLATION],
        {"batches": plan["batches"]},
        work=f"a pass over {sum(map(len, texts)):,} tokens",
        rounds=plan["rounds"],
        memory=False,
        gflop=gflop,
        peak=peak,
        least=1,
    )


def headline(row):
    """Returns what batching by length saves, and PyTorch's time over ours."""
    ablation = timing.ratio(row["seconds"][ABLATION], row["seconds"][OURS])
    return {
        "tokens_per_second_vs_naive": ablation["median"],
        "tokens_per_second_vs_torch": timing.torch_ratio(row)["median"],
    }


def flops(batch, length, vocab_size=VOCAB_SIZE, width=WIDTH, depth=DEPTH):
    """Estimates the floating-point operations of a training step.

    Counts products of matrices: in each block projections and attention, and a hidden
    layer of four times the width; at the predicted positions a hidden layer and the
    logits. The backward pass costs twice the forward pass.
    """
    block = length * (24 * width**2 + 4 * length * width)
    positions = int(np.ceil(PREDICTED * length))
    head = positions * (2 * width**2 + 2 * width * vocab_size)
    return 3 * batch * ((depth + 1) * block + head)


# The work.


def mixed_sentences(batches):
    """Makes sentences as long as those of pre-training, for so many of its batches.

    Each length bucket gets whole batches, so that nobody leaves sentences over.
    """
    rng = np.random.default_rng(1)
    counts = np.array(json.loads(RECORD.read_text("utf-8"))["lengths"])
    share = counts / counts.sum()
    mean = np.arange(len(share)) @ share
    lengths = rng.choice(len(share), round(batches * TOKENS / mean), p=share)
    bucket = np.searchsorted(LENGTHS, lengths)
    kept = []
    for i, size in enumerate(LENGTHS):
        members = np.flatnonzero(bucket == i)
        kept += members[: len(members) // (TOKENS // size) * (TOKENS // size)].tolist()
    return [rng.integers(5, VOCAB_SIZE, lengths[row], dtype="int32") for row in kept]


@functools.cache
def ready_batches(batch, length):
    """Returns `BATCHES` denoising examples of full sentences, as stacked arrays."""
    rng = np.random.default_rng(1)
    rows = rng.integers(5, VOCAB_SIZE, (timing.BATCHES * batch, length), dtype="int32")
    buckets = Buckets(list(rows), lengths=(length,), tokens=batch * length)
    examples = denoising_batches(buckets).take(timing.BATCHES).as_numpy_iterator()
    return keras.tree.map_structure(lambda *parts: np.stack(parts), *examples)


# The candidates.


def build(name, compiler, batch, length):
    """Builds a candidate: a function `steps -> seconds of each step`."""
    denoiser, batches = keras_model(compiler), ready_batches(batch, length)
    if name == "PyTorch":
        examples = [
            keras.tree.map_structure(lambda part, i=i: part[i], batches)
            for i in range(timing.BATCHES)
        ]
        return torch_run(denoiser, compiler, examples)
    if batch * length <= SHORT:
        denoiser.steps_per_execution = timing.TOGETHER
    return functools.partial(timing.keras_steps, denoiser, batches)


def build_pass(name, compiler, batches):
    """Builds a candidate: a function `passes -> seconds of each pass`."""
    texts, share = mixed_sentences(batches), PREDICTED
    if f"{name}, {compiler}" == ABLATION:
        buckets, share = Buckets(texts, lengths=(MAX_LENGTH,)), 1.0
    else:
        buckets = Buckets(texts)
    denoiser, steps = keras_model(compiler), len(buckets)
    dataset = denoising_batches(buckets, share=share)
    if name == "PyTorch":
        examples = dataset.take(steps).as_numpy_iterator()
        run = torch_run(denoiser, compiler, examples)
    else:
        run = functools.partial(timing.keras_steps, denoiser, dataset)
    return lambda passes: run(passes * steps).reshape(passes, steps).sum(axis=1)


def keras_model(compiler):
    """Builds our denoiser, compiled; each starts from the same weights."""
    keras.utils.set_random_seed(0)
    denoiser = build_denoiser(VOCAB_SIZE, width=WIDTH, depth=DEPTH, heads=HEADS)
    compile_denoiser(denoiser, steps=STEPS, jit_compile=compiler == "XLA")
    return denoiser


def torch_run(denoiser, compiler, examples):
    """Returns a function `steps -> seconds of each step` that trains in PyTorch."""
    peer = TorchDenoiser(denoiser, compiler)
    batches = [torch_example(example) for example in examples]
    return functools.partial(timing.torch_steps, peer.train, batches)


def torch_example(example):
    """Returns a batch of ours as tensors of PyTorch; indices are 64-bit there."""
    inputs, targets, weights = keras.tree.map_structure(torch.tensor, example)
    return {name: ids.long() for name, ids in inputs.items()}, targets.long(), weights


class TorchDenoiser:
    """The denoiser in PyTorch, with the weights of a Keras one without dropout."""

    def __init__(self, denoiser, compiler):
        encoder = denoiser.get_layer("encoder")
        self.tokens, self.places = timing.torch_parameters(
            encoder.get_layer("embedding").get_weights()
        )
        names = [layer.name for layer in encoder.layers if "block_" in layer.name]
        blocks = [encoder.get_layer(name) for name in names]
        blocks.append(denoiser.get_layer("decoder"))
        self.blocks = torch.nn.ModuleList([torch_block(block) for block in blocks])
        norms = encoder.get_layer("norm"), denoiser.get_layer("decoder_norm")
        self.norms = [torch_norm(norm) for norm in norms]
        head = denoiser.get_layer("logits")
        self.dense = torch_dense(*head._intermediate_dense.get_weights())
        self.head_norm = torch_norm(head._intermediate_layer_norm)
        (self.bias,) = timing.torch_parameters([head._bias.numpy()])
        modules = [self.blocks, *self.norms, self.dense, self.head_norm]
        parameters = [p for module in modules for p in module.parameters()]
        self.parameters = [self.tokens, self.places, self.bias, *parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, 1e-3, eps=1e-7, weight_decay=0.01, fused=True
        )
        self.compiled_loss = timing.torch_compiled(self.loss, compiler)

    def logits(self, token_ids, positions):
        """Returns the logits at positions, `(batch, positions, vocab_size)`."""
        padding = token_ids == PAD
        places = self.places[: token_ids.shape[1]]
        states = torch.nn.functional.embedding(token_ids, self.tokens) + places
        for i, block in enumerate(self.blocks):
            states = block(states, src_key_padding_mask=padding)
            if i >= len(self.blocks) - 2:  # the encoder's last, and the decoder
                states = self.norms[i - len(self.blocks)](states)
        index = positions[:, :, None].expand(-1, -1, states.shape[-1])
        states = torch.nn.functional.gelu(self.dense(states.gather(1, index)))
        return self.head_norm(states) @ self.tokens.T + self.bias

    def loss(self, inputs, targets, weights):
        """Returns the mean cross-entropy, weighted."""
        logits = self.logits(inputs["token_ids"], inputs["positions"])
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), reduction="none"
        )
        weights = weights.flatten()
        return (losses * weights).sum() / weights.sum()

    def train(self, *example):
        """Takes one training step; returns the loss."""
        loss = self.compiled_loss(*example)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return loss


def torch_dense(kernel, bias):
    """Copies the weights of a Keras `Dense` to PyTorch."""
    return timing.torch_copy(torch.nn.Linear(*kernel.shape), kernel.T, bias)


def torch_norm(norm):
    """Copies a Keras `LayerNormalization` to PyTorch."""
    layer = torch.nn.LayerNorm(norm.gamma.shape[0], norm.epsilon)
    return timing.torch_copy(layer, *norm.get_weights())


def torch_block(block):
    """Copies a `keras_nlp.layers.TransformerEncoder` to PyTorch."""
    weights = block._self_attention_layer.get_weights()
    width, heads, _ = weights[0].shape
    options = {"dropout": 0.0, "activation": "gelu", "batch_first": True}
    layer = torch.nn.TransformerEncoderLayer(
        width, heads, block.intermediate_dim, norm_first=True, **options
    )
    layer.norm1 = torch_norm(block._self_attention_layer_norm)
    layer.norm2 = torch_norm(block._feedforward_layer_norm)
    layer.linear1 = torch_dense(*block._feedforward_intermediate_dense.get_weights())
    layer.linear2 = torch_dense(*block._feedforward_output_dense.get_weights())
    # Query, key, value: (width, heads, size); output: (heads, size, width).
    kernels = [kernel.reshape(width, width) for kernel in weights[::2]]
    biases = [bias.reshape(width) for bias in weights[1::2]]
    inputs = np.hstack(kernels[:3]).T, np.hstack(biases[:3])
    timing.torch_copy(layer.self_attn, *inputs, kernels[3].T, biases[3])
    return layer


if __name__ == "__main__":
    timing.main(QUESTION, measure, PLAN)
