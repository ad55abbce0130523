"""Images, and arrays on regular grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .base import DataFieldError, FieldFunction, real_numbers


def field_of_image(path: Path, box: np.ndarray, method: str) -> FieldFunction:
    """An image as its brightness from 0 (black) to 1 (white); its upper left corner is that of the box.

    A value belongs to the middle of its pixel. Transparent parts are seen on white. Images of floating-point numbers
    keep these numbers.

    Args:
        box: (2, 2) the lower and the upper corner of its place.
    """
    # Pillow is loaded here, because most problems do without it.
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            deep = image.mode in ("I", "I;16", "I;16B", "I;16L", "F")
            largest = 255.0 if not deep else 1.0 if image.mode == "F" else 65535.0
            # Cameras write how an image has to be turned beside it.
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                seen = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
            brightness = np.asarray(upright if deep else upright.convert("L"), dtype=np.float64)
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataFieldError("file", f"cannot be read as an image: {error}") from None
    if image.mode != "F" and not (brightness.min() >= 0.0 and brightness.max() <= largest):
        found = f"numbers from {brightness.min():g} to {brightness.max():g}"
        raise DataFieldError("file", f"expected an image with numbers from 0 to {largest:g}, found {found}")
    values = brightness[::-1].T / largest
    axes = [low + (np.arange(n) + 0.5) / n * (high - low) for n, low, high in zip(values.shape, *box, strict=True)]
    return _on_grid(axes, values, method)


def field_of_array(path: Path, box: np.ndarray, method: str) -> FieldFunction:
    """An array whose entry [i, j, k] is the value at the i-th x, j-th y and k-th z of a grid from corner to corner."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        found = None
    if not isinstance(found, np.ndarray):
        raise DataFieldError("file", "expected an array of numbers, as numpy.save writes it")
    values = real_numbers("file", found)
    if values.ndim != box.shape[1] or min(values.shape) < 2:
        expected = f"an array with {box.shape[1]} axes on this mesh, of 2 values or more"
        raise DataFieldError("file", f"expected {expected}, found the shape {values.shape}")
    axes = [np.linspace(low, high, n) for n, low, high in zip(values.shape, *box, strict=True)]
    return _on_grid(axes, values, method)


def _on_grid(axes: list[np.ndarray], values: np.ndarray, method: str) -> FieldFunction:
    """Values on a grid as a function; outside of the grid it has the values at the edge."""
    from scipy.interpolate import RegularGridInterpolator

    if not np.isfinite(values).all():
        raise DataFieldError("file", "expected finite values, found some that are not")
    # An axis of one pixel has the same value everywhere.
    wide = [k for k, axis in enumerate(axes) if len(axis) > 1]
    if not wide:
        return lambda x: np.full(x.shape[1], float(values.reshape(-1)[0]))
    inner = RegularGridInterpolator([axes[k] for k in wide], values.squeeze(), method=method)
    low, high = (np.array([[axes[k][end]] for k in wide]) for end in (0, -1))
    return lambda x: np.asarray(inner(np.clip(x[wide], low, high).T))
