"""The number of digits of the coordinates in a mesh file, estimated from the numbers alone."""

from __future__ import annotations

import numpy as np

# Numbers with 5 to 8 significant digits are taken to be rounded. Numbers with fewer digits are written by people, who
# mean them exactly. With more digits, rounding is smaller than the share of the extent that counts as the same place.
_FEWEST, _MOST = 5, 8
# Least share of the different numbers that use the last two digits.
_SHARE = 0.25
# A number that is so few steps away from a number with two digits less does not use these two digits: 0.99999 may be
# 1 shifted by 0.00001 on purpose. Of rounded numbers, one in nine is so near by chance.
_NEAR = 5.5
# Number of coordinates that are examined first, because most files have all digits of a double.
_FIRST = 300


def rounding_step(points: np.ndarray) -> float:
    """The distance between neighbouring numbers that a file can hold, at its largest coordinates.

    It is zero where the coordinates (n, d) have all the digits of a double, or so few digits that they are exact, such
    as multiples of 1/8.
    """
    values = np.unique(np.abs(points))
    values = values[values > 0.0]
    if not len(values):
        return 0.0
    extent = np.ptp(points, axis=0).max()
    some = values[:: max(1, len(values) // _FIRST)]
    # Powers of ten beyond the range of a double belong to no number in a file, so that their warnings are ignored.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for steps_of in (_single, _significant, _decimals):
            if steps_of(some, extent) is None:
                continue
            found = steps_of(values, extent)
            if found is not None and (last := found[1]).mean() >= _SHARE:
                return float(found[0][last].max())
    return 0.0


# Each function below returns None where the values are not of its kind. Otherwise it returns, for each value, the
# distance to the next number of the kind, and whether the value uses the last digits.
_Steps = tuple[np.ndarray, np.ndarray]


def _decimals(values: np.ndarray, extent: float) -> _Steps | None:
    """Numbers with a fixed number of decimals, as in 0.33333."""
    coarsest = int(np.floor(np.log10(extent))) - _FEWEST + 1 if extent > 0.0 else 0
    for power in range(coarsest, coarsest - _MOST + _FEWEST - 2, -1):
        if _multiples(values, power).all():
            return np.full(len(values), 10.0**power), _used(values, power)
    return None


def _significant(values: np.ndarray, extent: float) -> _Steps | None:
    """Numbers with a fixed number of significant digits, as in 3.3333e-01."""
    power = np.floor(np.log10(values) + 1e-12).astype(int)
    for digits in range(_FEWEST, _MOST + 1):
        last = power - digits + 1
        if _multiples(values, last).all():
            return 10.0 ** last.astype(float), _used(values, last)
    return None


def _single(values: np.ndarray, extent: float) -> _Steps | None:
    """Numbers in single precision, also where they are written with more digits."""
    single = values.astype(np.float32)
    # Nine written digits change a number in single precision by up to 6e-9.
    near = np.abs(single.astype(np.float64) - values) <= 6e-9 * values
    if not near.all():
        return None
    mantissa = (np.frexp(single)[0].astype(np.float64) * 2.0**24).astype(np.int64)
    return np.spacing(single).astype(np.float64), mantissa % 2**6 != 0


def _multiples(values: np.ndarray, power: int | np.ndarray) -> np.ndarray:
    """Which values are multiples of a power of ten, up to the rounding of a double."""
    scaled = values * 10.0 ** -np.asarray(power, dtype=np.float64)
    return np.asarray(np.abs(scaled - np.rint(scaled)) <= 4.0 * np.finfo(float).eps * np.maximum(scaled, 1.0))


def _used(values: np.ndarray, power: int | np.ndarray) -> np.ndarray:
    """Which values use the digit at a power of ten, and the one before it."""
    scaled = values * 10.0 ** -np.asarray(power, dtype=np.float64)
    near = np.abs(scaled - 100.0 * np.rint(scaled / 100.0)) <= _NEAR
    return ~(near | _multiples(values, np.asarray(power) + 1))
