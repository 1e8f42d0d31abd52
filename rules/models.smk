"""Models: those that the workflow trains itself, and folders or hub models in its terms.

Leaves a manifest per model, model.json, and for trained ones the weights and the planted table.
They lie in the store, under the digest of all that they depend on.
"""

ORGANISMS = [name for name, model in SETTINGS.models.items() if model.organism]
OTHERS = [name for name, model in SETTINGS.models.items() if not model.organism]
MODEL = "results/store/{key}/{model}"


rule train_organism:
    """Train one small model on documents of known categories."""
    input:
        base=lambda wildcards: base_manifest(wildcards.model),
    output:
        f"{MODEL}/model.json",
    wildcard_constraints:
        model="|".join(ORGANISMS),
    shell:
        "true"


if OTHERS:

    rule resolve_model:
        """Write the manifest of a folder or of a pinned hub model; fetch the latter."""
        output:
            f"{MODEL}/model.json",
        wildcard_constraints:
            model="|".join(OTHERS),
        localrule: True
        shell:
            "true"


rule tabulate_planted:
    output:
        "<results>/models/planted.csv",
    shell:
        "true"
