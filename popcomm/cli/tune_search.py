"""What draws the parameters of a sweep's trials, as Ray Tune calls it: `tune.search`."""

from __future__ import annotations

from typing import Any

from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from popcomm.cli.search_space import Search
from popcomm.cli.tune_schedulers import VALUE


def make_searcher(wanted: Search, at_once: int | None) -> Any:
    """What draws parameters: a function of the seed, as all else is, and with Optuna of what trials came to.

    Args:
        wanted: the sweep.
        at_once: trials at a time; None: as many as there is room for.
    """
    if wanted.sampler == "optuna":
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        found = Measured(metric=VALUE, mode=wanted.mode, seed=wanted.seed)
        return ConcurrencyLimiter(found, max_concurrent=at_once) if at_once else found
    # Those that wait for a generation's end are not done, and would keep others from beginning.
    at_once = at_once if wanted.generation is None else None
    return BasicVariantGenerator(max_concurrent=at_once or 0, random_state=wanted.seed)


class Measured(OptunaSearch):
    """Optuna, of which Tune's own adapter wants a number of each report: those without one are kept from it.

    A trial that ends without a number counts as pruned.
    """

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if VALUE in result:
            super().on_trial_result(trial_id, result)
