"""Numbers that are predicted from state and control."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Prediction:
    """A linear functional of the state or of a control, such as a value at a point or an integral.

    Attributes:
        name: what it is called.
        state: (N,) the covector on all coefficients of the state; None of a functional of the control.
        control: (p,) the covector on the control; None of a functional of the state.
    """

    name: str
    state: Tensor | None
    control: Tensor | None

    def value(self, state: Tensor, control: Tensor) -> float:
        """Its value for coefficients (1, N) of the state and a control (p,)."""
        if self.state is not None:
            return float(state[0] @ self.state)
        assert self.control is not None
        return float(control @ self.control)
