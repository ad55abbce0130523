"""The section `state` of a problem file: what the state is, if not finite elements alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nhgd_pde.problem_file.fields import Number, Numbers, Section


class NetworkState(Section):
    """A fully connected network with tanh, whose values at the nodes of the finite elements are the state."""

    kind: Literal["network"]
    layers: Annotated[tuple[int, ...], Numbers(Number(whole=True, least=1), single=False)] = Field(
        default=(20, 20), description="Widths of its hidden layers."
    )
