"""Sets that tensorflow-datasets has prepared on this machine."""

import os
import re

from common.archives import DataError


class NotPreparedError(DataError):
    """The set is not prepared, and nobody asked to download it."""


def prepared_builder(dataset, loader, data_dir=None, download=False):
    """Returns the builder of a set that is prepared, or says what to do.

    Args:
        dataset: str, its name in tensorflow-datasets.
        loader: str, the function to call for a download, with its module.
        data_dir: str or path, folder of tensorflow-datasets. Defaults to the
            environment's `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
        download: bool, whether to download and prepare the set where it is missing.

    Raises:
        NotPreparedError: If it is missing and nobody asked for a download.
        DataError: If the set is damaged or the download fails.
    """
    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    folder = os.path.expanduser(folder)
    try:
        builder, prepared = _open_builder(dataset, folder)
    except ImportError as error:
        error_type = DataError if download else NotPreparedError
        raise error_type(
            f"{dataset} needs tensorflow-datasets, which cannot be imported ({error}): "
            "run `python -m pip install tensorflow-datasets importlib_resources`."
        ) from error
    if prepared:
        return builder
    # A set gets this folder when it is whole. Where it exists, tensorflow-datasets
    # downloads nothing.
    if os.path.exists(builder.data_path):
        raise _damaged(builder.data_path, "it has no dataset_info.json")
    if not download:
        module, name = loader.rsplit(".", 1)
        call = f"{name}('tfds', data_dir={folder!r}, download=True)"
        raise NotPreparedError(
            f"{dataset} is not prepared in {folder}: in the root of the repository, "
            f'download it with `python -c "from {module} import {name}; {call}"`, '
            "or set TFDS_DATA_DIR to a folder that has it, or use source='embedded'."
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # whatever it was, the advice is the same
        raise DataError(
            f"{dataset} could not be downloaded to {folder} "
            f"({type(error).__name__}: {error}): check the network and that the "
            "folder can be written, then run again, or use source='embedded'."
        ) from error
    return builder


def _open_builder(dataset, folder):
    import tensorflow_datasets as tfds
    from absl import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # it warns of every set not prepared
    try:
        builder = tfds.builder(dataset, data_dir=folder)
        # Asked first, because tfds.load would try to download for minutes on end.
        return builder, builder.is_prepared()
    except Exception as error:  # its type depends on the damage
        path = os.path.join(folder, dataset)
        if isinstance(error, ImportError) or not os.path.isdir(path):
            raise
        raise _damaged(path, error) from error
    finally:
        logging.set_verbosity(level)


def _damaged(folder, error):
    # TensorFlow puts its reason between names of its own functions.
    reason = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", str(error))
    return DataError(
        f"The prepared set in {folder} is damaged ({reason}): delete that folder, then "
        "prepare the set again with download=True, or use source='embedded'."
    )


def read_rows(builder, split, key):
    """Reads one feature and the labels of a split into memory.

    Args:
        builder: see `prepared_builder`.
        split: str, such as "train".
        key: str, the name of the feature.

    Returns:
        `(values, labels)`, two NumPy arrays with a row per example. Texts are
        UTF-8 `bytes`.

    Raises:
        DataError: If the set is damaged.
    """
    try:
        # One batch of everything: a Python loop over the rows takes far longer.
        rows = builder.as_dataset(split=split, batch_size=-1)
    except Exception as error:  # its type depends on the damage
        raise _damaged(builder.data_path, error) from error
    return rows[key].numpy(), rows["label"].numpy()


def read_texts(builder, split, key):
    """Reads a labelled split of texts; arguments and errors are those of `read_rows`.

    Returns:
        `(texts, labels)`, a list of `str` and an int array.
    """
    texts, labels = read_rows(builder, split, key)
    return [text.decode("utf-8") for text in texts.tolist()], labels
