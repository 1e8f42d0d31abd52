"""Comparison: what fine-tuning changed, beyond chance, and whether the planted truth was found.

Reads scored and labelled latents; leaves behaviour.csv, categories.csv, recovery.csv and
answer.json.
"""

PLANTED = "<results>/models/planted.csv" if has_planted(SETTINGS) else []


rule compare_categories:
    """Compare counts and shares per category, with intervals, tests and the null beside them."""
    input:
        latents=[f"<results>/latents/{at}/latents.parquet" for at in fits_and_seeds(COMPARED)],
        selection=[f"<results>/latents/{at}/selection.parquet" for at in fits_and_seeds(COMPARED)],
        examples=[f"<results>/latents/{at}/examples.parquet" for at in fits_and_seeds(COMPARED)],
        labels=[f"<results>/autointerp/{at}/labels.parquet" for at in fits_and_seeds(COMPARED)],
        behaviour="<results>/comparison/behaviour.csv",
        taxonomy=TAXONOMY,
    output:
        "<results>/comparison/categories.csv",
    log:
        "<results>/logs/compare_categories.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=keys.step_digest("comparison.compare_categories"),
        fits=as_json(compared_files(COMPARED, "labels")),
        comparisons=as_json({n: c.model_dump() for n, c in SETTINGS.comparisons.items()}),
        rule_=flags(SETTINGS.comparison, "confidence", "fdr", "reference", "least_latents"),
    shell:
        "logged {log:q} python -m workflow_scripts.comparison.compare_categories"
        " --fits {params.fits:q} --comparisons {params.comparisons:q}"
        " --behaviour {input.behaviour:q} --taxonomy {input.taxonomy:q} {params.rule_:q}"
        " --output {output:q}"


rule score_recovery:
    """Set what was found beside what was planted, and say it in one sentence."""
    input:
        categories="<results>/comparison/categories.csv",
        planted=PLANTED,
    output:
        recovery="<results>/comparison/recovery.csv",
        answer="<results>/comparison/answer.json",
    log:
        "<results>/logs/score_recovery.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=keys.step_digest("comparison.score_recovery"),
        planted=(
            [
                f"--planted={RESULTS}/models/planted.csv",
                "--pair",
                SETTINGS.organism.planted.baseline,
                SETTINGS.organism.planted.candidate,
            ]
            if PLANTED
            else []
        ),
        rule_=flags(SETTINGS.comparison, "primary", "labeller", "fdr"),
    shell:
        "logged {log:q} python -m workflow_scripts.comparison.score_recovery"
        " --categories {input.categories:q} {params.planted:q} {params.rule_:q}"
        " --recovery {output.recovery:q} --answer {output.answer:q}"
