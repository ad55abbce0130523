"""One test and its verdict, and the comparison of derivatives with differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..linalg.differences import EstimatedDerivative

# Relative error above which a derivative is wrong.
TOLERANCE = 1e-6
# An error must also exceed the estimated error of the differences by this factor.
_CLEAR = 10.0
# The accuracy of a line is reached by 99 % of its entries; entries below 1e-3 of the largest count as this large.
_MOST, _SMALL = 0.99, 1e-3
# Share of entries near kinks that is ignored.
_FEW = 1e-5
KINKS = "kinks of abs, maximum, sign, l1, ...?"
# Names of two tests of the same derivative; the second one detects kinks.
RATE, DIFFERENCES = "Taylor rate of the objective", "hypergradient against differences"


@dataclass(frozen=True)
class Check:
    """One test.

    Attributes:
        name: what was tested.
        value: the result; the relative error in a comparison with differences.
        expected: the expected result, in words.
        passed: whether the result is as expected.
        accuracy: the smallest relative error that a comparison can see; None for other tests.
        remark: a remark; empty without one.
        kinks: at some of the points there is no derivative.
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
        """Every test has passed."""
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
    found: Sequence[EstimatedDerivative],
    sizes: Sequence[Tensor | float] = (),
    together: bool = False,
    places: Tensor | None = None,
    row: Callable[[int, int], str] = lambda number, count: "",
) -> Check | None:
    """Claimed derivatives against differences, entry by entry; None where nothing depends on what was changed.

    Args:
        name: of the test.
        claims: claimed derivatives, one tensor per direction.
        found: the same derivatives by differences.
        sizes: one size per direction that errors are relative to, where it is larger than the derivative itself.
        together: all directions give the entries of one vector, which are compared over all directions at once.
        places: (dim, P) the points that the last axis of the entries belongs to.
        row: (number, count) of a row on the axis before -> what it belongs to, in words.
    """
    rows, kinks = [], []
    count = found[0].value.shape[-2] if found[0].value.ndim > 1 else 1
    for k, (claim, estimate) in enumerate(zip(claims, found, strict=True)):
        claim, value, doubt = torch.broadcast_tensors(claim, estimate.value, estimate.doubt)
        # Entries that do not change, and whose claimed derivative is zero, have no rounding errors.
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
        # The root of the sum of squares over the directions, computed without overflow.
        numbers, jumps = [_lengths(each) for each in numbers], np.asarray(jumps.any(axis=0))
    entries = Entries(*(each.reshape(-1) for each in (*numbers, jumps)))
    if not (entries.size > 0.0).any() and not np.isinf(entries.error).any():
        return None
    return entries.judged(name, places, lambda number: row(number, count), count)


def _lengths(rows: np.ndarray) -> np.ndarray:
    largest = np.maximum(rows.max(axis=0), np.finfo(float).tiny)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(largest), largest * np.sqrt(((rows / largest) ** 2).sum(axis=0)), np.inf)


@dataclass(frozen=True)
class Entries:
    """Derivatives that were compared.

    Attributes:
        error: errors of the claimed derivatives.
        doubt: estimated errors of the differences.
        size: the sizes that both errors are relative to.
        kinks: whether the derivative jumps nearby.
    """

    error: np.ndarray
    doubt: np.ndarray
    size: np.ndarray
    kinks: np.ndarray

    def judged(self, name: str, places: Tensor | None, row: Callable[[int], str], rows: int) -> Check:
        """The verdict, with the place of the worst entry, and the row of those on the axis before the places."""
        wrong = (self.error > TOLERANCE * self.size) & (self.error > _CLEAR * self.doubt)
        # Entries much smaller than the rest have few digits, and are ignored unless they are clearly wrong.
        small = _SMALL * self.size.max()
        size, jumps = np.maximum(self.size, small), self.kinks & (self.size + self.doubt > small)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(self.error > 0.0, self.error / np.where(wrong, self.size, size), 0.0)
            accuracy = np.where(self.doubt > 0.0, self.doubt / size, 0.0)
        clear = np.sort(accuracy[~jumps])
        typical = float(clear[min(int(_MOST * len(clear)), len(clear) - 1)]) if len(clear) else np.inf
        if not np.isfinite(typical):
            # Where most differences overflow, derivatives that overflow are no mistakes.
            wrong &= np.isfinite(self.error)
        seen = relative[wrong if wrong.any() else (accuracy <= typical) & ~jumps]
        value = float(seen.max()) if len(seen) else 0.0
        remarks = []
        if wrong.any() and places is not None:
            worst, point = divmod(int(np.argmax(np.where(wrong, relative, -1.0))), places.shape[1])
            told = ", ".join(f"{float(axis):.4g}" for axis in places[:, point])
            kind = "wrong" if np.isfinite(value) else "not a number"
            share, where = 100.0 * float(wrong.mean()), row(worst % rows)
            remarks.append(f"{kind} at {share:.2g} % of the points, as at ({told}){where}")
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


def worst_of_each(checks: Sequence[Check]) -> list[Check]:
    """The worst result of each test that was made at several states or scenarios."""
    found: dict[str, list[Check]] = {}
    for check in checks:
        found.setdefault(check.name, []).append(check)
    return [max(own, key=lambda each: (not each.passed, each.kinks, each.accuracy or 0.0)) for own in found.values()]


def with_kinks(checks: Sequence[Check]) -> list[Check]:
    """The tests, with remarks on kinks, found by other tests, where a test failed or its differences are poor."""
    if not any(check.kinks for check in checks):
        return list(checks)
    right = all(check.passed for check in checks if check.name == DIFFERENCES)
    found = []
    for check in checks:
        poor = check.accuracy is not None and check.accuracy > TOLERANCE
        if check.name == RATE and not check.passed and right:
            # The comparison with differences tests the same derivative, and detects points without one.
            check = replace(check, passed=True, remark="less than 2 because of kinks")
        elif not check.kinks and (poor or not check.passed):
            check = replace(check, remark="; ".join(filter(None, [check.remark, "this may be due to kinks"])))
        found.append(check)
    return found
