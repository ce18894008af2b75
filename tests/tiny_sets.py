"""Sets of a few rows that tensorflow-datasets prepares without a network."""

import numpy as np


def _text(key):
    return lambda i: {key: f"Ünrated text {i}", "label": i % 2}


# Of each set, the rows of its splits and what row i holds.
TINY = {
    "glue/sst2": (
        {"train": 8, "validation": 4, "test": 4},
        lambda i: _text("sentence")(i) | {"idx": i},
    ),
    "imdb_reviews/plain_text": (
        {"train": 8, "test": 4, "unsupervised": 8},
        _text("text"),
    ),
    "mnist": (
        {"train": 8, "test": 4},
        lambda i: {"image": np.full((28, 28, 1), i, "uint8"), "label": i},
    ),
}


def prepare_tiny_sets(folder):
    """Prepares SST-2, IMDB and MNIST of a few rows each, in their real formats.

    Args:
        folder: path, the folder of tensorflow-datasets to make.

    Returns:
        The folder.
    """
    import tensorflow_datasets as tfds

    for dataset, (splits, row) in TINY.items():
        builder = tfds.builder(dataset, data_dir=folder)
        builder._split_generators = lambda *_, splits=splits, row=row, **__: {
            split: ((i, row(i)) for i in range(count))
            for split, count in splits.items()
        }
        offline = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(download_config=offline)
    return folder


def _cut_in_half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _keep_three_rows(path):
    content, end = path.read_bytes(), 0
    for _ in range(3):  # a row of n bytes takes n + 16, which begin with n
        end += 16 + int.from_bytes(content[end : end + 8], "little")
    path.write_bytes(content[:end])


def _change_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


SHARDS, INFO = "*.tfrecord*", "dataset_info.json"
DAMAGES = {
    "shard cut in a row": (SHARDS, _cut_in_half),
    "shard cut between rows": (SHARDS, _keep_three_rows),
    "shard with a wrong byte": (SHARDS, _change_a_byte),
    "shard empty": (SHARDS, lambda path: path.write_bytes(b"")),
    "shard missing": (SHARDS, lambda path: path.unlink()),
    "info cut": (INFO, _cut_in_half),
    "info empty": (INFO, lambda path: path.write_bytes(b"")),
    "info of nothing": (INFO, lambda path: path.write_text("{}")),
    "info no text": (INFO, lambda path: path.write_bytes(b"\xff\xfe\x00")),
    "info missing": (INFO, lambda path: path.unlink()),
}


def apply_damage(name, folder):
    """Damages a prepared set.

    Args:
        name: a key of `DAMAGES`.
        folder: path, the folder of the set.
    """
    pattern, damage = DAMAGES[name]
    for path in folder.rglob(pattern):
        damage(path)
