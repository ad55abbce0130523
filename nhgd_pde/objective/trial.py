"""Checks of a user's density before it is used."""

from __future__ import annotations

import torch

from ..pde.probing import changed_in_place, probe
from .integral import IntegralTerm


def trial_of_density(name: str, term: IntegralTerm, given: str = "") -> tuple[str, bool]:
    """A sentence on a mistake in a user's density, empty without one, and whether the density depends on controls.

    `given` describes the arguments of the function for the sentence.
    """
    generator = torch.Generator().manual_seed(0)
    like = term.evaluation.quadrature.weights
    shape = (term.evaluation.components, 1, term.evaluation.quadrature.points)
    at = [torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)]
    if term.controls is not None:
        controls = (term.controls.components, *shape[1:])
        at.append(torch.rand(controls, generator=generator, dtype=like.dtype).to(like.device))
    depends = False
    try:
        first = term.values(*at)
        if first.dtype != like.dtype:
            told, wanted = (str(each).removeprefix("torch.") for each in (first.dtype, like.dtype))
            return f"{name} returned numbers of type {told}; expected {wanted}", False
        named = dict(zip(("u or grad", "v"), at, strict=False)) | {"x": term.evaluation.quadrature.flat}
        changed = changed_in_place(lambda: term.values(*at), named)
        if changed:
            return f"{name} changes {changed}, which it is given, in place: expected new tensors", False
        for label, argument, components in term.groups:

            def value(each: torch.Tensor, argument: int = argument) -> torch.Tensor:
                both = [*at]
                both[argument] = each
                return term.values(*both)[None]

            found = probe(value, at[argument], components, 1.0, generator)
            if found is not None and found.wrong:
                return f"{name}: {found.sentence(label)}", False
            depends = depends or (argument == 1 and found is not None and found.depends)
    except Exception as error:
        hint = f"; {given}" if given else ""
        told = f"{name} raised {type(error).__name__}: {error}; expected a density of shape {shape[1:]}{hint}"
        return told, False
    return "", depends
