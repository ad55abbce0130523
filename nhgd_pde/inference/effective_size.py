"""The number of independent samples that a correlated series is worth."""

from __future__ import annotations

import numpy as np


def effective_size(series: np.ndarray) -> float:
    """n / (1 + 2 sum of autocorrelations), by Geyer's initial monotone sequence (1992, Stat. Sci. 7); at most n.

    Args:
        series: (n,) values of a stationary reversible chain. A constant series, which tells nothing, gives 0.
    """
    n = len(series)
    deviation = series - series.mean()
    # Autocovariances by the Fourier transform of the padded series.
    length = 1 << (2 * n - 1).bit_length()
    power = np.abs(np.fft.rfft(deviation, length)) ** 2
    covariance = np.fft.irfft(power, length)[:n] / n
    if n < 4 or not covariance[0] > 0.0 or not np.isfinite(covariance[0]):
        return 0.0
    pairs = covariance[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    positive = len(pairs) if (pairs > 0.0).all() else int(np.argmin(pairs > 0.0))
    monotone = np.minimum.accumulate(pairs[:positive])
    time = (2.0 * monotone.sum() - covariance[0]) / covariance[0]
    return float(min(n, n / time)) if time > 0.0 else float(n)
