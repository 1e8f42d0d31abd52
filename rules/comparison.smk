"""Comparison: what fine-tuning changed, beyond chance, and whether the planted truth was found.

Reads scored and labelled latents, and the models' likelihoods; leaves behaviour.csv,
categories.csv, sensitivity.csv, weighted.csv, gaps.csv, recovery.csv and answer.json.
"""

PLANTED = "<results>/models/planted.csv" if PLANTED_PAIRS else []
COMPARE = [
    f"--fits={in_order(compared_files(COMPARED, *LABELS))}",
    f"--comparisons={in_order({n: c.model_dump() for n, c in SETTINGS.comparisons.items()})}",
    *flags(SETTINGS.comparison, "confidence", "fdr", "reference", "margin", "least_latents"),
]
COMPARE_INPUTS = {
    "latents": compared_inputs(
        "latents", "latents", "selection", *(["examples"] if ANNOTATED else [])
    ),
    "labels": compared_inputs("autointerp", *LABELS),
    "behaviour": f"{RESULTS}/comparison/behaviour.csv",
    "taxonomy": TAXONOMY,
}


rule evaluate_behaviour:
    """Measure how well each compared model predicts each category's text."""
    input:
        models=[manifest(name) for name in compared_models()],
        tokens=TOKEN_SHARDS,
    output:
        "<results>/comparison/behaviour.csv",
    log:
        "<results>/logs/evaluate_behaviour.log",
    benchmark:
        "<results>/logs/evaluate_behaviour.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=asked("evaluate_behaviour", "mem_mb"),
        runtime=asked("evaluate_behaviour", "runtime"),
        gpu=GPU,
    params:
        code=store_keys.step_digest("comparison.evaluate_behaviour"),
        models=[f"--model={name}={manifest(name)}" for name in compared_models()],
        settings=flags(SETTINGS.activations, "compute_dtype"),
        means=means("batch_tokens", "device"),
        documents=SETTINGS.comparison.behaviour_documents,
    shell:
        "HF_HUB_OFFLINE=1 logged {log:q} python -m workflow_scripts.comparison.evaluate_behaviour"
        " {params.models:q} --tokens {input.tokens:q} {params.settings:q} {params.means:q}"
        " --documents {params.documents} --threads {threads} --output {output:q}"


rule compare_categories:
    """Compare counts and shares per category, with intervals, tests and the null beside them."""
    input:
        **COMPARE_INPUTS,
    output:
        "<results>/comparison/categories.csv",
    log:
        "<results>/logs/compare_categories.log",
    priority: CHAIN
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("comparison.compare_categories"),
        compare=COMPARE,
    shell:
        "logged {log:q} python -m workflow_scripts.comparison.compare_categories"
        " {params.compare:q} --behaviour {input.behaviour:q} --taxonomy {input.taxonomy:q}"
        " --output {output:q}"


rule vary_decisions:
    """Compare again with other thresholds and without template latents."""
    input:
        **COMPARE_INPUTS,
    output:
        "<results>/comparison/sensitivity.csv",
    log:
        "<results>/logs/vary_decisions.log",
    priority: CHAIN
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("comparison.vary_decisions"),
        compare=COMPARE,
    shell:
        "logged {log:q} python -m workflow_scripts.comparison.vary_decisions"
        " {params.compare:q} --behaviour {input.behaviour:q} --taxonomy {input.taxonomy:q}"
        " --output {output:q}"


rule weight_shares:
    """Count unique latents by firing, activation and explanation score too."""
    input:
        **COMPARE_INPUTS,
    output:
        "<results>/comparison/weighted.csv",
    log:
        "<results>/logs/weight_shares.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("comparison.weight_shares"),
        compare=COMPARE,
    shell:
        "logged {log:q} python -m workflow_scripts.comparison.weight_shares"
        " {params.compare:q} --behaviour {input.behaviour:q} --taxonomy {input.taxonomy:q}"
        " --output {output:q}"


rule ablate_categories:
    """Take each category's unique latents away and see whose text becomes harder to predict."""
    input:
        unpack(lambda wildcards: cause_inputs(wildcards.comparison)),
        labels=lambda wildcards: labelled_files(wildcards.comparison),
        taxonomy=TAXONOMY,
    output:
        "<results>/comparison/ablation/{comparison}.csv",
    log:
        "<results>/logs/ablate_categories/{comparison}.log",
    benchmark:
        "<results>/logs/ablate_categories/{comparison}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=asked("ablate_categories", "mem_mb"),
        runtime=asked("ablate_categories", "runtime"),
    params:
        code=store_keys.step_digest("interventions.ablate_categories"),
        fit=lambda wildcards: in_order(ablated_fit(wildcards.comparison)),
        pair=lambda wildcards: direct_pair(wildcards.comparison),
        inputs=lambda wildcards: cause_flags(wildcards.comparison),
        means=means("batch_tokens", "device"),
        models=lambda wildcards: named_models(wildcards.comparison),
        rule_=flags(SETTINGS.comparison, "labeller", "confidence"),
    shell:
        "HF_HUB_OFFLINE=1 logged {log:q} python -m workflow_scripts.interventions.ablate_categories"
        " --comparison {wildcards.comparison} --pair {params.pair} --fit {params.fit:q}"
        " {params.models:q} {params.inputs:q} {params.means:q} {params.rule_:q} --tokens {input.tokens:q}"
        " --taxonomy {input.taxonomy:q} --threads {threads} --output {output:q}"


rule explain_gaps:
    """Join each category's gap in score with the change of its latents."""
    input:
        categories="<results>/comparison/categories.csv",
        leaderboard=SETTINGS.comparison.leaderboard or [],
    output:
        "<results>/comparison/gaps.csv",
    log:
        "<results>/logs/explain_gaps.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("comparison.explain_gaps"),
        rule_=flags(SETTINGS.comparison, "leaderboard", "confidence"),
    shell:
        "logged {log:q} python -m workflow_scripts.comparison.explain_gaps"
        " --categories {input.categories:q} {params.rule_:q} --output {output:q}"


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
        code=store_keys.step_digest("comparison.score_recovery"),
        planted=[f"--planted={RESULTS}/models/planted.csv"] if PLANTED else [],
        rule_=[*primary_flag(), *flags(SETTINGS.comparison, "labeller", "fdr")],
    shell:
        "logged {log:q} python -m workflow_scripts.comparison.score_recovery"
        " --categories {input.categories:q} {params.planted:q} {params.rule_:q}"
        " --recovery {output.recovery:q} --answer {output.answer:q}"
