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
# The accuracy of a line is reached by this share of its entries; entries much smaller than the largest count for none.
_MOST, _SMALL = 0.99, 1e-3
# A share of entries near kinks that says nothing.
_FEW = 1e-5
KINKS = "kinks of abs, maximum, sign, l1, ...?"
# Tests of one derivative, of which the second knows of kinks.
RATE, DIFFERENCES = "Taylor rate of the objective", "hypergradient against differences"


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
    rows, kinks = [], []
    for k, (claim, estimate) in enumerate(zip(claims, found, strict=True)):
        claim, value, doubt = torch.broadcast_tensors(claim, estimate.value, estimate.doubt)
        # What does not change at all, and is not said to, is no matter of rounding.
        still = (claim == 0.0) & (value == 0.0) & ~estimate.kinks & doubt.isfinite()
        doubt = torch.where(still, 0.0, doubt)
        known = doubt.isfinite() & claim.isfinite()
        size = torch.where(known, torch.maximum(claim.abs(), value.abs()), claim.abs())
        if sizes:
            size = torch.maximum(size, torch.as_tensor(sizes[k], dtype=size.dtype).abs())
        error = torch.where(known, (claim - value).abs(), 0.0)
        # A claim that is no number where differences are is wrong; where both are none, nothing is known.
        error = torch.where(~claim.isfinite() & doubt.isfinite(), torch.inf, error)
        rows.append(torch.stack([error, doubt, size.nan_to_num(0.0, 0.0, 0.0)]).reshape(3, -1))
        kinks.append(estimate.kinks.reshape(-1))
    numbers: list[np.ndarray] = list(torch.stack(rows, dim=1).cpu().numpy())
    jumps = torch.stack(kinks).cpu().numpy()
    if together:
        # Lengths over the directions, of numbers whose squares may not be finite.
        numbers, jumps = [_lengths(each) for each in numbers], np.asarray(jumps.any(axis=0))
    entries = Entries(*(each.reshape(-1) for each in (*numbers, jumps)))
    if not (entries.size > 0.0).any() and not np.isinf(entries.error).any():
        return None
    return entries.judged(name, places)


def _lengths(rows: np.ndarray) -> np.ndarray:
    largest = np.maximum(rows.max(axis=0), np.finfo(float).tiny)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(largest), largest * np.sqrt(((rows / largest) ** 2).sum(axis=0)), np.inf)


@dataclass(frozen=True)
class Entries:
    """Derivatives that were compared.

    Attributes:
        error: their errors.
        doubt: estimates of the errors of the differences.
        size: what both are relative to.
        kinks: whether the derivative jumps nearby.
    """

    error: np.ndarray
    doubt: np.ndarray
    size: np.ndarray
    kinks: np.ndarray

    def judged(self, name: str, places: Tensor | None) -> Check:
        """The verdict, with the place of the worst of them."""
        wrong = (self.error > TOLERANCE * self.size) & (self.error > _CLEAR * self.doubt)
        # What is much smaller than the rest has few digits, and is no matter unless it is clearly wrong.
        small = _SMALL * self.size.max()
        size, jumps = np.maximum(self.size, small), self.kinks & (self.size + self.doubt > small)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(self.error > 0.0, self.error / np.where(wrong, self.size, size), 0.0)
            accuracy = np.where(self.doubt > 0.0, self.doubt / size, 0.0)
        clear = np.sort(accuracy[~jumps])
        typical = float(clear[min(int(_MOST * len(clear)), len(clear) - 1)]) if len(clear) else np.inf
        seen = relative[wrong if wrong.any() else (accuracy <= typical) & ~jumps]
        value = float(seen.max()) if len(seen) else 0.0
        remarks = []
        if wrong.any() and places is not None:
            worst = int(np.argmax(np.where(wrong, relative, -1.0))) % places.shape[1]
            point = ", ".join(f"{float(axis):.4g}" for axis in places[:, worst])
            kind = "wrong" if np.isfinite(value) else "not a number"
            remarks.append(f"{kind} at {100.0 * float(wrong.mean()):.2g} % of the points, as at ({point})")
        kinks = float(jumps.mean())
        kinked = kinks > _FEW
        if kinked:
            remarks.append(f"near {100.0 * kinks:.2g} % of the points the derivative jumps: {KINKS}")
        if not np.isfinite(typical):
            told = "not seen at all"
        else:
            told = f"seen to {typical:.0e}" + (" only" if typical > TOLERANCE else "")
        expected = f"at most {TOLERANCE:.0e}, {told}"
        return Check(name, value, expected, not bool(wrong.any()), typical, "; ".join(remarks), kinked)


def with_kinks(checks: Sequence[Check]) -> list[Check]:
    """Lines that failed, or whose differences are poor, with a word on the kinks that others have found."""
    if not any(check.kinks for check in checks):
        return list(checks)
    right = all(check.passed for check in checks if check.name == DIFFERENCES)
    found = []
    for check in checks:
        poor = check.accuracy is not None and check.accuracy > TOLERANCE
        if check.name == RATE and not check.passed and right:
            # Differences judge the same derivative, and know where there is none.
            check = replace(check, passed=True, remark="less than 2 because of kinks")
        elif not check.kinks and (poor or not check.passed):
            check = replace(check, remark="; ".join(filter(None, [check.remark, "this may be due to kinks"])))
        found.append(check)
    return found
