"""Measure how far annotators agree on categories: alpha with interval, kappa per pair and category.

Raters are the annotators' replicates. The labels before the gate are compared; a failed answer is
missing, while `unassigned` and `uninterpretable` are answers.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from workflow_scripts.autointerp.agreement import RELIABLE
from workflow_scripts.autointerp.annotation_tables import GOOD
from workflow_scripts.autointerp.rater_agreement import describe_agreement, is_reliable
from workflow_scripts.common import cli, files


def measure_agreement(labels: Path, seed: int, output: Path) -> None:
    """Write how far the annotators agree; null where that is undefined.

    Parameters
    ----------
    labels
        labels of all annotators (Parquet)
    seed
        seed of the bootstrap
    output
        file to write (JSON)
    """
    table = files.read_parquet(labels)
    table["label"] = table["category_ungated"].where(table["status"].isin(GOOD))
    llm = table[table["annotator_kind"] == "llm"]
    annotators = sorted(table["annotator"].unique())
    result: dict[str, object] = {
        "latents": int(table["latent"].nunique()),
        "annotators": annotators,
        "reliable_from": RELIABLE,
    }
    result["llm"] = of_llm = describe_agreement(llm, "latent", seed)
    result["all"] = describe_agreement(table, "latent", seed)
    result["reliable"] = reliable = is_reliable(of_llm)
    result["banner"] = _banner(llm, reliable)
    files.write_json(output, result)
    cli.log(f"agreement of {len(annotators)} annotators written to {output.name}")


def _banner(llm: pd.DataFrame, reliable: bool | None) -> str:
    if llm.empty:
        return "one lexical annotator, no LLM: agreement cannot be measured"
    if reliable is None:
        return "agreement cannot be measured: labels may not be reliable"
    return "" if reliable else f"labels not reliable: alpha is below {RELIABLE}"


main = cli.command(measure_agreement)


if __name__ == "__main__":
    raise SystemExit(main())
