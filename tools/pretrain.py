"""Pre-trains the denoiser of question 4 on several workers at once.

```
python -m tools.pretrain --workers 2 build/pretraining
```

Ray starts the workers, here or on the cluster that `RAY_ADDRESS` names; they share
every batch and end with the weights that one worker would have. The folder must be one
that all of them see. It keeps the state after every epoch, from which the same command
goes on, and in the end `denoiser.weights.h5`.
"""

import argparse
from pathlib import Path

from common import distributed


def pretrain(settings):
    """Trains, as one of several workers.

    Args:
        settings: dict of what the command line has: `folder`, `source`, `epochs`,
            `steps`, `tokens` and `seed`.
    """
    import keras
    import tensorflow as tf

    # Before anything else of TensorFlow.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    from q4_denoise_text import corpus, published
    from q4_denoise_text.denoise_text import build_denoiser
    from q4_denoise_text.pretraining import Buckets, compile_denoiser, denoising_batches

    epochs, steps, seed = (settings[name] for name in ("epochs", "steps", "seed"))
    tokenizer = corpus.make_tokenizer(str(published.VOCABULARY))
    text = corpus.load_corpus(settings["source"], download=True)
    rows, _ = published.encode_corpus(text, tokenizer)
    with strategy.scope():
        keras.utils.set_random_seed(seed)
        denoiser = build_denoiser(tokenizer.vocabulary_size())
        compile_denoiser(denoiser, steps=epochs * steps, jit_compile=False)
    folder = Path(settings["folder"])
    distributed.fit(
        denoiser,
        denoising_batches(Buckets(rows, tokens=settings["tokens"]), seed=seed),
        strategy=strategy,
        epochs=epochs,
        steps_per_epoch=steps,
        backup_dir=folder,
    )
    if strategy.cluster_resolver.task_id == 0:
        denoiser.save_weights(folder / "denoiser.weights.h5")


def main(argv=None):
    """Launches the workers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the state is kept")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=1, help="of each worker")
    parser.add_argument("--source", default="tfds", choices=("tfds", "embedded"))
    parser.add_argument("--epochs", type=int, default=34)
    parser.add_argument("--steps", type=int, default=500, help="of an epoch")
    parser.add_argument("--tokens", type=int, default=4_096, help="of a batch")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    settings = vars(args) | {"folder": str(args.folder.resolve())}
    distributed.launch(
        pretrain,
        settings,
        workers=args.workers,
        cpus=args.cpus,
        folder=args.folder / "ray",
    )
    print(f"Written: {args.folder / 'denoiser.weights.h5'}")


if __name__ == "__main__":
    main()
