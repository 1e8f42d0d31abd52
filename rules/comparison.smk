"""Comparison: what fine-tuning changed, beyond chance, and whether the planted truth was found.

Reads scored and labelled latents, and the models' likelihoods; leaves
losses.parquet, tables of weighed documents, of predictions and of answers, changes.csv,
categories.csv, witnesses.csv, sensitivity.csv, weighted.csv, gaps.csv, recovery.csv and answer.json.
"""

from workflow_scripts.activations.settings import Batches, Precision
from workflow_scripts.common.device import Device
from workflow_scripts.comparison.settings import AnswerSample, Intervals, Judgement, LabelSample
from workflow_scripts.comparison.settings import PredictionSample

COMPARED_MODELS = comparisons.compared_models(SETTINGS)


rule evaluate_behaviour:
    """Measure how well each compared model predicts documents of every label."""
    input:
        models=[PATHS.manifest(name) for name in COMPARED_MODELS],
        tokens=PATHS.tokens,
        labels=PATHS.label_files,
    output:
        losses=PATHS.losses,
        divergences=PATHS.divergences,
    log:
        "<results>/logs/evaluate_behaviour.log",
    benchmark:
        "<results>/logs/evaluate_behaviour.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        **ON_GPU,
    params:
        **step("comparison.evaluate_behaviour"),
        models=as_json({name: PATHS.manifest(name) for name in COMPARED_MODELS}),
        pairs=[name for pair in comparisons.compared_pairs(SETTINGS) for name in pair],
        settings=[
            *flags(SETTINGS.activations, Precision),
            *flags(SETTINGS.comparison, LabelSample),
        ],
        seed=SETTINGS.seed,
        speed=speed(Batches, Device),
    shell:
        "HF_HUB_OFFLINE=1 logged {log:q} python -m {params.step}"
        " --models {params.models:q} --pairs {params.pairs} --tokens {input.tokens:q} --labels {input.labels:q}"
        " {params.settings:q} --seed {params.seed} {params.speed:q} --threads {threads}"
        " --losses {output.losses:q} --divergences {output.divergences:q}"


rule compare_predictions:
    """Compare two models' predictions token by token, and read what their difference promotes."""
    input:
        unpack(for_comparison(PATHS.compared_manifests)),
        tokenizer=PATHS.manifest(store_keys.tokenizer_models(SETTINGS)[0]),
        tokens=PATHS.tokens,
        labels=PATHS.label_files,
    output:
        **PATHS.predictions("{comparison}"),
    log:
        "<results>/logs/compare_predictions/{comparison}.log",
    benchmark:
        "<results>/logs/compare_predictions/{comparison}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        **ON_GPU,
    params:
        **step("comparison.compare_predictions"),
        layer=lambda wildcards: SETTINGS.fits[fit_name(wildcards)].layer,
        settings=[
            *flags(SETTINGS.activations, Precision),
            *flags(SETTINGS.comparison, PredictionSample, Intervals),
        ],
        seed=SETTINGS.seed,
        speed=speed(Batches, Device),
    shell:
        "HF_HUB_OFFLINE=1 logged {log:q} python -m {params.step}"
        " --baseline {input.baseline:q} --candidate {input.candidate:q} --layer {params.layer}"
        " --tokens {input.tokens:q} --labels {input.labels:q} --tokenizer {input.tokenizer:q}"
        " {params.settings:q} --seed {params.seed} {params.speed:q} --threads {threads}"
        " --by-label {output.labels:q} --by-token {output.tokens:q} --rows {output.rows:q}"


rule generate_answers:
    """Let both models answer held-out prompts."""
    input:
        unpack(for_comparison(PATHS.compared_manifests)),
        tokenizer=PATHS.manifest(store_keys.tokenizer_models(SETTINGS)[0]),
        tokens=PATHS.tokens,
        labels=PATHS.label_files,
    output:
        PATHS.answers("{comparison}"),
    log:
        "<results>/logs/generate_answers/{comparison}.log",
    benchmark:
        "<results>/logs/generate_answers/{comparison}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        **ON_GPU,
    params:
        **step("comparison.generate_answers"),
        settings=[
            *flags(SETTINGS.activations, Precision),
            *flags(SETTINGS.comparison, AnswerSample),
        ],
        seed=SETTINGS.seed,
        speed=speed(Batches, Device),
    shell:
        "HF_HUB_OFFLINE=1 logged {log:q} python -m {params.step}"
        " --baseline {input.baseline:q} --candidate {input.candidate:q}"
        " --tokens {input.tokens:q} --labels {input.labels:q} --tokenizer {input.tokenizer:q}"
        " {params.settings:q} --seed {params.seed} {params.speed:q} --threads {threads}"
        " --output {output:q}"


rule compare_answers:
    """Compare two models' answers, by label: lengths, distances, what built-in tests recognise."""
    input:
        answers=PATHS.answers("{comparison}"),
        labels=PATHS.label_files,
    output:
        PATHS.answers("{comparison}", "csv"),
    log:
        "<results>/logs/compare_answers/{comparison}.log",
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        **step("comparison.compare_answers"),
        rule_=flags(SETTINGS.comparison, AnswerSample, Intervals),
        seed=SETTINGS.seed,
    shell:
        "logged {log:q} python -m {params.step} --answers {input.answers:q}"
        " --labels {input.labels:q} {params.rule_:q} --seed {params.seed} --output {output:q}"


rule weigh_documents:
    """Weigh each document: how far two models are apart on it, and by which latents."""
    input:
        unpack(lambda wildcards: PATHS.fit_inputs(fit_name(wildcards))),
        crosscoder=lambda wildcards: (
            f"{PATHS.crosscoder(fit_name(wildcards), wildcards.seed)}/crosscoder.safetensors"
        ),
        latents=lambda wildcards: (
            f"{PATHS.latents(fit_name(wildcards), wildcards.seed)}/latents.parquet"
        ),
        selection=lambda wildcards: (
            f"{PATHS.latents(fit_name(wildcards), wildcards.seed)}/selection.parquet"
        ),
        tokens=PATHS.tokens,
        labels=PATHS.label_files,
    output:
        documents="<results>/comparison/documents/{comparison}_seed{seed}.parquet",
        carriers="<results>/comparison/documents/{comparison}_seed{seed}_carriers.parquet",
    log:
        "<results>/logs/weigh_documents/{comparison}_seed{seed}.log",
    benchmark:
        "<results>/logs/weigh_documents/{comparison}_seed{seed}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        **ON_GPU,
    params:
        **FOLDER,
        **step("comparison.weigh_documents"),
        inputs=lambda wildcards: FLAGS.activations(fit_name(wildcards)),
        models=for_comparison(FLAGS.compared_models),
        settings=flags(SETTINGS.comparison, LabelSample),
        seed=SETTINGS.seed,
        speed=speed("device"),
    shell:
        "logged {log:q} python -m {params.step}"
        " {params.inputs:q} --crosscoder {params.folder:q} --latents {input.latents:q}"
        " --selection {input.selection:q} {params.models:q} --tokens {input.tokens:q}"
        " --labels {input.labels:q} {params.settings:q} --seed {params.seed} --threads {threads} {params.speed:q}"
        " --documents {output.documents:q} --carriers {output.carriers:q}"


rule show_carriers:
    """Collect contexts of the latents that carry a change, unique or not."""
    input:
        unpack(lambda wildcards: PATHS.fit_inputs(fit_name(wildcards))),
        crosscoder=lambda wildcards: (
            f"{PATHS.crosscoder(fit_name(wildcards), wildcards.seed)}/crosscoder.safetensors"
        ),
        carriers="<results>/comparison/documents/{comparison}_seed{seed}_carriers.parquet",
        tokens=PATHS.tokens,
        tokenizer=PATHS.manifest(store_keys.tokenizer_models(SETTINGS)[0]),
    output:
        "<results>/comparison/documents/{comparison}_seed{seed}_contexts.parquet",
    log:
        "<results>/logs/show_carriers/{comparison}_seed{seed}.log",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        **ON_GPU,
    params:
        **FOLDER,
        **step("comparison.show_carriers"),
        inputs=lambda wildcards: FLAGS.activations(fit_name(wildcards)),
        sizes=flags(SETTINGS.latents.examples),
        speed=speed("device"),
    shell:
        "logged {log:q} python -m {params.step}"
        " {params.inputs:q} --tokens {input.tokens:q} --crosscoder {params.folder:q}"
        " --carriers {input.carriers:q} --tokenizer {input.tokenizer:q} {params.sizes:q}"
        " --threads {threads} {params.speed:q} --output {output:q}"


rule compare_categories:
    """Compare counts and shares per category, with intervals, tests and the null beside them."""
    input:
        **PATHS.comparison_inputs(),
        taxonomy=TAXONOMY,
    output:
        "<results>/comparison/categories.csv",
    log:
        "<results>/logs/compare_categories.log",
    priority: CHAIN
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        **step("comparison.compare_categories"),
        compare=FLAGS.comparison(),
    shell:
        "logged {log:q} python -m {params.step}"
        " {params.compare:q} --taxonomy {input.taxonomy:q} --output {output:q}"


use rule compare_categories as vary_decisions with:
    """Compare again with other thresholds and without template latents."""
    output:
        "<results>/comparison/sensitivity.csv",
    log:
        "<results>/logs/vary_decisions.log",
    localrule: True
    params:
        **step("comparison.vary_decisions"),


use rule compare_categories as weight_shares with:
    """Count unique latents by firing, activation and explanation score too."""
    output:
        "<results>/comparison/weighted.csv",
    log:
        "<results>/logs/weight_shares.log",
    priority: 0
    localrule: True
    params:
        **step("comparison.weight_shares"),


rule judge_changes:
    """Judge on two axes which labels' text the models predict and represent differently."""
    input:
        labels=PATHS.label_files,
        losses=PATHS.losses,
        divergences=PATHS.divergences,
        documents=PATHS.weighed_documents(),
    output:
        "<results>/comparison/changes.csv",
    log:
        "<results>/logs/judge_changes.log",
    priority: CHAIN
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        **step("comparison.judge_changes"),
        pairs=FLAGS.judged_pairs(),
        sample=flags(SETTINGS.comparison, LabelSample),
        seed=SETTINGS.seed,
        rule_=flags(SETTINGS.comparison, Judgement),
    shell:
        "logged {log:q} python -m {params.step} {params.pairs:q} --labels {input.labels:q}"
        " --losses {input.losses:q} --divergences {input.divergences:q} {params.sample:q} --seed {params.seed} {params.rule_:q}"
        " --output {output:q}"


rule compare_witnesses:
    """Set side by side what every method says of each label's text."""
    input:
        changes="<results>/comparison/changes.csv",
        categories="<results>/comparison/categories.csv",
        further=[
            str(own[name])
            for own in PATHS.witnesses().values()
            for name in ("predictions", "answers")
            if own[name]
        ],
    output:
        "<results>/comparison/witnesses.csv",
    log:
        "<results>/logs/compare_witnesses.log",
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        **step("comparison.compare_witnesses"),
        comparisons=in_order(PATHS.witnesses()),
        rule_=flags(SETTINGS.comparison, "fdr"),
    shell:
        "logged {log:q} python -m {params.step} --changes {input.changes:q}"
        " --categories {input.categories:q} --comparisons {params.comparisons:q}"
        " {params.rule_:q} --output {output:q}"


rule explain_gaps:
    """Join the gaps of a leaderboard with the changes of the same labels."""
    input:
        changes="<results>/comparison/changes.csv",
        leaderboard=SETTINGS.comparison.leaderboard or [],
    output:
        "<results>/comparison/gaps.csv",
    log:
        "<results>/logs/explain_gaps.log",
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        **step("comparison.explain_gaps"),
        rule_=flags(SETTINGS.comparison, Intervals),
    shell:
        "logged {log:q} python -m {params.step} --changes {input.changes:q}"
        " --leaderboard {input.leaderboard:q} {params.rule_:q} --output {output:q}"


rule score_recovery:
    """Compare what was found with what was planted, and state the answer in one sentence."""
    input:
        categories="<results>/comparison/categories.csv",
        changes="<results>/comparison/changes.csv",
        labels=PATHS.label_files,
        text="<results>/dataset/manifest.json",
        planted="<results>/models/planted.csv" if PLANTED_PAIRS else [],
    output:
        recovery="<results>/comparison/recovery.csv",
        answer="<results>/comparison/answer.json",
    log:
        "<results>/logs/score_recovery.log",
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        **step("comparison.score_recovery"),
        planted=[f"--planted={RESULTS}/models/planted.csv"] if PLANTED_PAIRS else [],
        rule_=[*FLAGS.answering(), *flags(SETTINGS.comparison, "labeller", "fdr")],
    shell:
        "logged {log:q} python -m {params.step}"
        " --categories {input.categories:q} --changes {input.changes:q} --labels {input.labels:q}"
        " --text {input.text:q} {params.planted:q} {params.rule_:q}"
        " --recovery {output.recovery:q} --answer {output.answer:q}"
