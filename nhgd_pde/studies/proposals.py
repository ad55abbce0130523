"""Runs that Optuna proposes from the results of earlier ones. Optuna is imported here and nowhere else."""

from __future__ import annotations

import math
from typing import Any

from ..problem_file.errors import Issue, ProblemError
from .designs import Rounds, numbered
from .study_spec import OptunaSpec, Variation
from .table_rows import measure


def optuna_module() -> Any:
    """Optuna, if it is installed.

    Raises:
        ProblemError: it is not.
    """
    try:
        import optuna
    except ImportError as missing:
        message = f"expected a kind that needs no other package, or Optuna: pip install 'nhgd-pde[study]' ({missing})"
        raise ProblemError([Issue("kind", message)]) from None
    return optuna


def proposed(spec: OptunaSpec) -> Rounds:
    """Rounds of `batch` runs.

    The sampler sees the results in the order of the runs, so that its proposals do not depend on which run was faster.
    A study that is resumed makes the same proposals again.
    """
    optuna = optuna_module()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = _sampler(optuna, spec)
    search = optuna.create_study(sampler=sampler, direction="minimize")
    space = {key: _distribution(optuna, each) for key, each in spec.vary.items()}
    made = 0
    while made < spec.trials:
        trials = [search.ask(space) for _ in range(min(spec.batch, spec.trials - made))]
        settings = [{key: _value(spec.vary[key], each.params[key]) for key in space} for each in trials]
        rows = yield numbered(settings, made + 1)
        made += len(trials)
        for trial, row in zip(trials, rows, strict=True):
            value = measure(row, spec.minimise)
            good = row["status"] in ("converged", "stopped") and value is not None and math.isfinite(value)
            if good:
                search.tell(trial, value)
            else:
                search.tell(trial, state=optuna.trial.TrialState.FAIL)


def _sampler(optuna: Any, spec: OptunaSpec) -> Any:
    if spec.sampler == "random":
        return optuna.samplers.RandomSampler(seed=spec.seed)
    return optuna.samplers.TPESampler(seed=spec.seed)


def _distribution(optuna: Any, each: Variation) -> Any:
    if each.ends is None or each.values:
        # Values may be lists, which Optuna does not take: it chooses their numbers.
        return optuna.distributions.CategoricalDistribution(range(len(each.values)))
    return optuna.distributions.FloatDistribution(*sorted(each.ends), log=each.logarithmic)


def _value(each: Variation, chosen: Any) -> Any:
    return each.values[chosen] if each.values else float(f"{chosen:.6g}")
