"""The image of problems/image_target.yaml: python -m benchmarks.image_target_data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from nhgd_pde.problem_file.expressions import Expression

PIXELS = 256
PATH = Path(__file__).parents[1] / "problems" / "data" / "ring.png"
_DISTANCE = "sqrt((x - 0.5)**2 + (y - 0.5)**2)"
# The widths are many pixels, so that values between pixels are those of the formula to 1e-3.
FORMULA = (
    f"exp(-(({_DISTANCE} - 0.28)/0.08)**2) + exp(-((x - 0.62)**2 + (y - 0.58)**2)/0.08**2)*(1 - "
    f"exp(-(({_DISTANCE} - 0.28)/0.08)**2))"
)


def picture() -> np.ndarray:
    """(rows, columns) whole numbers of 16 bits, the first row at the top."""
    middle = (np.arange(PIXELS) + 0.5) / PIXELS
    values = Expression(FORMULA).numpy(np.stack(np.meshgrid(middle, middle[::-1])))
    return np.round(65535 * np.clip(values, 0.0, 1.0)).astype(np.uint16)


if __name__ == "__main__":
    Image.fromarray(picture()).save(PATH)
