"""One test and its verdict, and the comparison of derivatives with differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..linalg.differences import Estimate

# Relative error of a derivative that is a failure.
TOLERANCE = 1e-6
# Estimated errors of differences that an error has to exceed as well.
_CLEAR = 10.0
# Where differences are worse than this, relative to the derivative, there is none: a kink.
_NONE = 1e-2
# The accuracy of a line is reached by this share of its entries; entries much smaller than the largest count for none.
_MOST, _SMALL = 0.99, 1e-6
# A share of entries that says nothing.
_FEW = 1e-5
KINKS = "kinks (abs, maximum, minimum, sign, l1 and the like)"


@dataclass(frozen=True)
class Check:
    """One test.

    Attributes:
        name: what was tested.
        value: what came out; of a comparison with differences the relative error.
        expected: what should have, in words.
        passed: whether it did.
        accuracy: the relative error that could have been seen; None of other tests.
        remark: what else there is to say; empty where there is nothing.
        kinks: at some of its points there is no derivative.
    """

    name: str
    value: float
    expected: str
    passed: bool
    accuracy: float | None = None
    remark: str = ""
    kinks: bool = False


@dataclass(frozen=True)
class Verification:
    """All tests of a problem; prints as a table with a verdict.

    Attributes:
        problem: its name.
        checks: the tests.
        place: at which state and control they were made, in words.
    """

    problem: str
    checks: tuple[Check, ...]
    place: str = ""

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        lines = [
            f"  {'ok  ' if check.passed else 'FAIL'} {check.name:<{width}}  {check.value:10.3g}   {check.expected}"
            + (f"; {check.remark}" if check.remark else "")
            for check in self.checks
        ]
        failed = sum(not check.passed for check in self.checks)
        place = f" {self.place}" if self.place else ""
        return "\n".join([f"{self.problem}{place}:", *lines, self._verdict(failed)])

    def _verdict(self, failed: int) -> str:
        if failed:
            return f"{failed} of {len(self.checks)} tests failed"
        blurred = [check for check in self.checks if check.accuracy is not None and check.accuracy > TOLERANCE]
        if not blurred:
            return "every derivative is right"
        tests = "1 test" if len(blurred) == 1 else f"{len(blurred)} tests"
        return f"no derivative is seen to be wrong; {tests} could not see relative errors of {TOLERANCE:g}"


def compared(
    name: str,
    claims: Sequence[Tensor],
    found: Sequence[Estimate],
    sizes: Sequence[Tensor | float] = (),
    together: bool = False,
    places: Tensor | None = None,
) -> Check | None:
    """Claimed derivatives against differences, entry by entry; None where nothing depends on what was changed.

    Args:
        name: of the test.
        claims: a tensor a direction.
        found: the same by differences.
        sizes: what errors are relative to where that is more than the derivative itself, one a direction.
        together: the entries are those of one vector, which all the directions see.
        places: (dim, P) where the last axis of the entries lies.
    """
    shape = claims[0].shape
    rows = []
    for k, (claim, estimate) in enumerate(zip(claims, found, strict=True)):
        claim, value, doubt = torch.broadcast_tensors(claim, estimate.value, estimate.doubt)
        known = doubt.isfinite() & claim.isfinite()
        size = torch.where(known, torch.maximum(claim.abs(), value.abs()), claim.abs())
        if sizes:
            size = torch.maximum(size, torch.as_tensor(sizes[k], dtype=size.dtype).abs())
        error = torch.where(known, (claim - value).abs(), 0.0)
        # A claim that is no number where differences are is wrong; where both are none, nothing is known.
        error = torch.where(~claim.isfinite() & doubt.isfinite(), torch.inf, error)
        rows.append(torch.stack([error, doubt, size.nan_to_num(0.0, 0.0, 0.0)]).reshape(3, -1))
    error, doubt, size = torch.stack(rows, dim=1).cpu().numpy()
    if together:
        # Lengths over the directions, of numbers whose squares may not be finite.
        error, doubt, size = (_lengths(each) for each in (error, doubt, size))
    error, doubt, size = (each.reshape(-1) for each in (error, doubt, size))
    if not (size > 0.0).any() and not np.isinf(error).any():
        return None
    return _judged(name, error, doubt, size, shape, places)


def _lengths(rows: np.ndarray) -> np.ndarray:
    largest = np.maximum(rows.max(axis=0), np.finfo(float).tiny)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(largest), largest * np.sqrt(((rows / largest) ** 2).sum(axis=0)), np.inf)


def _judged(
    name: str, error: np.ndarray, doubt: np.ndarray, size: np.ndarray, shape: torch.Size, places: Tensor | None
) -> Check:
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(error > 0.0, error / size, 0.0)
        accuracy = np.where(doubt > 0.0, doubt / size, 0.0)
    wrong = (relative > TOLERANCE) & (error > _CLEAR * doubt)
    counted = size > _SMALL * size.max()
    own = np.sort(accuracy[counted]) if counted.any() else np.array([np.inf])
    typical = float(own[min(int(_MOST * len(own)), len(own) - 1)])
    none = counted & (accuracy > _NONE)
    kinks = float(none.sum()) / max(float(counted.sum()), 1.0)
    if wrong.any():
        value = float(relative[wrong].max())
    else:
        seen = relative[counted & (accuracy <= max(typical, TOLERANCE))]
        value = float(seen.max()) if len(seen) else 0.0
    only = " only" if typical > TOLERANCE else ""
    remarks = []
    if wrong.any() and places is not None:
        worst = int(np.argmax(np.where(wrong, relative, -1.0))) % shape[-1]
        point = ", ".join(f"{float(axis):.4g}" for axis in places[:, worst])
        remarks.append(f"wrong at {float(wrong.sum()) / max(float(counted.sum()), 1.0):.2g} of the entries, as at ({point})")
    if kinks > _FEW and places is not None:
        remarks.append(f"at {100.0 * kinks:.2g} % of the entries the differences see no derivative: {KINKS}?")
    seen_to = f"seen to {typical:.0e}{only}" if np.isfinite(typical) else "not seen at all"
    return Check(
        name,
        value,
        f"at most {TOLERANCE:.0e}, {seen_to}",
        not bool(wrong.any()),
        typical,
        "; ".join(remarks),
        kinks > _FEW and places is not None,
    )


def with_kinks(checks: Sequence[Check]) -> list[Check]:
    """Lines that failed, or whose differences are poor, with a word on the kinks that others have found."""
    kinked = any(check.kinks for check in checks)
    if not kinked:
        return [
            replace(check, remark=f"the differences are poor, perhaps because of {KINKS}")
            if check.accuracy is not None and check.accuracy > TOLERANCE and not check.remark
            else check
            for check in checks
        ]
    return [
        replace(check, remark="; ".join(filter(None, [check.remark, f"this may be due to the {KINKS} found above"])))
        if not check.kinks and (not check.passed or (check.accuracy is not None and check.accuracy > TOLERANCE))
        else check
        for check in checks
    ]
