"""Checks of names that would make two things of a run one: files, columns or rows.

Most names are free, since rules know which names are models, fits and so on. Each check raises a
UserError with one sentence that names the culprit and the remedy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import permutations

from workflow_scripts.common.cli import UserError
from workflow_scripts.dataset.documents import ALL
from workflow_scripts.run.paths import STORE
from workflow_scripts.run.settings import Config

BESIDE_FITS = ("difference", "cause")
"""Folders of comparisons that lie beside those of fits, …"""
IN_FITS = re.compile("seed[0-9]+|consensus")
"""… and what a comparison's files there may not be called, since a fit's are."""


def check_names(config: Config) -> None:
    """Check that no two things of the run have one name."""
    if f"results/{config.run}" == STORE:
        raise UserError(f"config: run is {config.run}: {STORE} is the store of all runs: rename it")
    if ALL in config.text.sources:
        raise UserError(
            f"config: text.sources.{ALL}: tables name the sum of all sources so: rename the source"
        )
    for fit in config.fits.keys() & set(BESIDE_FITS):
        for comparison in filter(IN_FITS.fullmatch, config.comparisons):
            raise UserError(
                f"config: fits.{fit} and comparisons.{comparison} would write the same files: "
                "rename one of them"
            )
    models = list(config.models)
    pairs = list(permutations(models, 2))
    claims = [f"{own}_vs_{other}" for own, other in pairs]
    for names in (
        [f"{one}_{other}" for one, other in pairs],
        [*claims, *map("{}_se".format, claims)],
    ):
        if repeated := _repeated(names):
            raise UserError(
                f"config: models: two pairs of {', '.join(models)} are both called {repeated}, in "
                "the columns of tables: rename a model"
            )


def _repeated(names: Iterable[str]) -> str | None:
    """Return the first name that occurs twice, if any."""
    return next((name for name, count in Counter(names).items() if count > 1), None)
