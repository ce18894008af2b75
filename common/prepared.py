"""Sets that tensorflow-datasets has prepared on this machine."""

import os

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
        DataError: If the download fails.
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
    # TensorFlow's notes about buffers; it listens only until it is first imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow_datasets as tfds
    from absl import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # it warns of every set not prepared
    try:
        builder = tfds.builder(dataset, data_dir=folder)
        # Asked first, because tfds.load would try to download for minutes on end.
        return builder, builder.is_prepared()
    finally:
        logging.set_verbosity(level)


def read_texts(builder, split, key):
    """Reads a labelled split of texts.

    Args:
        builder: see `prepared_builder`.
        split: str, such as "train".
        key: str, the feature that holds the text.

    Returns:
        `(texts, labels)`, a list of `str` and an int array.
    """
    # One batch of everything: a Python loop over the rows takes far longer.
    rows = builder.as_dataset(split=split, batch_size=-1)
    texts = [text.decode("utf-8") for text in rows[key].numpy().tolist()]
    return texts, rows["label"].numpy()
