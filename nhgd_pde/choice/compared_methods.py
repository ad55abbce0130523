"""The compared methods by their names in a problem file, all of them loaded."""

from __future__ import annotations

from ..methods.compared_method import Compared
from ..population.options import PopulationOptions
from ..problem_file import catalogue

METHODS: dict[str, type[Compared]] = {name: catalogue.found_at(place) for name, place in catalogue.METHODS.items()}
"""Methods for problems without random inputs."""

FOR_EVOLUTIONS: dict[str, type[Compared]] = {
    name: catalogue.found_at(place) for name, place in catalogue.EVOLUTION_METHODS.items()
}
"""Methods for evolutions alone."""

OVER_SCENARIOS: dict[str, type[Compared]] = {
    name: catalogue.found_at(place) for name, place in catalogue.SCENARIO_METHODS.items()
}
"""Methods for problems with random inputs."""

SEARCHES: dict[str, type[PopulationOptions]] = {
    name: catalogue.found_at(place) for name, place in catalogue.SEARCHES.items()
}
"""Searches among several local optima."""
