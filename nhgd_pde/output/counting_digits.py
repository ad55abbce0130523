"""How many digits of a number count, and how it is written with its uncertainty."""

from __future__ import annotations

import math

# An estimate of an error may be too small by this factor.
SAFETY = 2.0


def counting_digits(value: float, error: float) -> int:
    """The number of leading decimal digits of a value that an error leaves right.

    The d-th digit counts where twice the error (see `SAFETY`) is at most half a unit of that digit. With NaN or an
    infinite error no digit counts.
    """
    if not (math.isfinite(value) and math.isfinite(error)) or value == 0.0:
        return 0
    doubt = 2.0 * SAFETY * abs(error)
    if doubt == 0.0:
        return 16
    first = math.floor(math.log10(abs(value)))
    return min(max(first - math.ceil(math.log10(doubt)) + 1, 0), 16)


def with_uncertainty(value: float, error: float) -> str:
    """A value such as `7.76(2)e-04`: in brackets one digit of the error, rounded up, in units of the last digit.

    Where the error is as large as the value, both are written out.
    """
    if not (math.isfinite(value) and math.isfinite(error)):
        return f"{value:.3e}"
    if error == 0.0 or value == 0.0:
        return f"{value:.9e}" if error == 0.0 else f"{value:.1e} +- {abs(error):.1e}"
    first, place = math.floor(math.log10(abs(value))), math.floor(math.log10(abs(error)))
    digit = math.ceil(abs(error) / 10.0**place - 1e-9)
    if digit == 10:
        digit, place = 1, place + 1
    if place >= first:
        return f"{value:.1e} +- {abs(error):.1e}"
    decimals = min(first - place, 15)
    # The exponent is that of the value before it is rounded, so that the place of the digit in brackets is known.
    return f"{value / 10.0**first:.{decimals}f}({digit})e{first:+03d}"
