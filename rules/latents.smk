"""Latents: their scores, the rule that makes one unique to a model, and their contexts.

Reads crosscoders, activations and tokens; leaves latents.parquet, selection.parquet,
examples.parquet, background.parquet, sampled.parquet and promoted.parquet.
"""

from workflow_scripts.activations.settings import Precision
from workflow_scripts.latents.settings import Matching, Promotion, Scoring, Selection

LATENTS = "<results>/latents/{fit}/seed{seed}"


rule score_latents:
    """Score every latent: decoder norms, latent scaling with errors, activity."""
    input:
        unpack(for_fit(PATHS.fit_inputs)),
        crosscoder=f"{CROSSCODER}/crosscoder.safetensors",
        tokens=PATHS.tokens,
        documents=PATHS.documents,
    output:
        f"{LATENTS}/latents.parquet",
    log:
        "<results>/logs/score_latents/{fit}_seed{seed}.log",
    benchmark:
        "<results>/logs/score_latents/{fit}_seed{seed}.tsv"
    priority: CHAIN
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        **ON_GPU,
    params:
        **ENCODES,
        **step("latents.score_latents"),
        rule_=flags(SETTINGS.latents, Scoring),
    shell:
        "logged {log:q} python -m {params.step} {params.inputs:q}"
        " --crosscoder {params.folder:q} --tokens {input.tokens:q} --documents {input.documents:q}"
        " {params.rule_:q} --threads {threads} {params.speed:q} --output {output:q}"


rule select_latents:
    """Decide which latents are unique to one model."""
    input:
        f"{LATENTS}/latents.parquet",
    output:
        selection=f"{LATENTS}/selection.parquet",
        summary=f"{LATENTS}/selection.json",
    log:
        "<results>/logs/select_latents/{fit}_seed{seed}.log",
    priority: CHAIN
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        **step("latents.select_latents"),
        models=lambda wildcards: SETTINGS.fits[wildcards.fit].models,
        rule_=flags(SETTINGS.latents, Selection),
    shell:
        "logged {log:q} python -m {params.step}"
        " --latents {input:q} --models {params.models:q} {params.rule_:q}"
        " --selection {output.selection:q} --summary {output.summary:q}"


rule collect_examples:
    """Collect contexts of the unique latents and of a sample of the others."""
    input:
        unpack(for_fit(PATHS.fit_inputs)),
        crosscoder=f"{CROSSCODER}/crosscoder.safetensors",
        selection=f"{LATENTS}/selection.parquet",
        tokens=PATHS.tokens,
        tokenizer=PATHS.manifest(store_keys.tokenizer_models(SETTINGS)[0]),
    output:
        examples=f"{LATENTS}/examples.parquet",
        background=f"{LATENTS}/background.parquet",
        sampled=f"{LATENTS}/sampled.parquet",
    log:
        "<results>/logs/collect_examples/{fit}_seed{seed}.log",
    benchmark:
        "<results>/logs/collect_examples/{fit}_seed{seed}.tsv"
    priority: CHAIN
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        **ON_GPU,
    params:
        **ENCODES,
        **step("latents.collect_examples"),
        sizes=flags(SETTINGS.latents.examples),
        seed=SETTINGS.seed,
        # It takes few buffers, of growing size: kept ones would more than double its memory.
        allocator="env -u MALLOC_MMAP_MAX_ -u MALLOC_TRIM_THRESHOLD_",
    shell:
        "logged {log:q} {params.allocator} python -m {params.step}"
        " {params.inputs:q} --tokens {input.tokens:q} --crosscoder {params.folder:q}"
        " --selection {input.selection:q} --tokenizer {input.tokenizer:q} {params.sizes:q}"
        " --seed {params.seed} --threads {threads} {params.speed:q}"
        " --examples {output.examples:q} --background {output.background:q}"
        " --sampled {output.sampled:q}"


rule match_latents:
    """Match the latents of a fit's seeds: which come back."""
    input:
        unpack(for_fit(PATHS.fit_inputs)),
        crosscoders=lambda wildcards: PATHS.of_seeds(
            "crosscoder", [wildcards.fit], "crosscoder.safetensors"
        ),
        selections=lambda wildcards: PATHS.of_seeds("latents", [wildcards.fit], "selection.parquet"),
    output:
        matches="<results>/latents/{fit}/matches.parquet",
        stability="<results>/latents/{fit}/stability.parquet",
        consensus="<results>/latents/{fit}/consensus.csv",
    log:
        "<results>/logs/match_latents/{fit}.log",
    benchmark:
        "<results>/logs/match_latents/{fit}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        **ON_GPU,
    params:
        **step("latents.match_latents"),
        inputs=for_fit(FLAGS.activations),
        seeds=for_fit(FLAGS.matched_seeds),
        rule_=flags(SETTINGS.latents, Matching),
        seed=SETTINGS.seed,
        speed=speed("device"),
    shell:
        "logged {log:q} python -m {params.step}"
        " {params.inputs:q} {params.seeds:q} {params.rule_:q} --seed {params.seed}"
        " --threads {threads} {params.speed:q} --matches {output.matches:q}"
        " --stability {output.stability:q} --consensus {output.consensus:q}"


rule pair_mirrors:
    """Pair latents of two models that fire for the same text in one crosscoder."""
    input:
        unpack(for_fit(PATHS.fit_inputs)),
        crosscoder=f"{CROSSCODER}/crosscoder.safetensors",
        selection=f"{LATENTS}/selection.parquet",
    output:
        f"{LATENTS}/mirrors.parquet",
    log:
        "<results>/logs/pair_mirrors/{fit}_seed{seed}.log",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        **ON_GPU,
    params:
        **ENCODES,
        **step("latents.pair_mirrors"),
        rule_=flags(SETTINGS.latents, Matching),
        seed=SETTINGS.seed,
    shell:
        "logged {log:q} python -m {params.step}"
        " {params.inputs:q} --crosscoder {params.folder:q} --selection {input.selection:q}"
        " {params.rule_:q} --seed {params.seed}"
        " --threads {threads} {params.speed:q} --output {output:q}"


rule promote_tokens:
    """Read which tokens latents promote and suppress, through either model's unembedding."""
    input:
        models=lambda wildcards: [PATHS.manifest(m) for m in SETTINGS.fits[wildcards.fit].models],
        crosscoder=f"{CROSSCODER}/crosscoder.safetensors",
        selection=f"{LATENTS}/selection.parquet",
        tokenizer=PATHS.manifest(store_keys.tokenizer_models(SETTINGS)[0]),
    output:
        f"{LATENTS}/promoted.parquet",
    log:
        "<results>/logs/promote_tokens/{fit}_seed{seed}.log",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        **ON_GPU,
    params:
        **FOLDER,
        **step("latents.promote_tokens"),
        models=for_fit(FLAGS.models_of_fit),
        settings=[
            *flags(SETTINGS.activations, Precision),
            *flags(SETTINGS.latents, Promotion),
        ],
        seed=SETTINGS.seed,
        speed=speed("device"),
    shell:
        "HF_HUB_OFFLINE=1 logged {log:q} python -m {params.step}"
        " {params.models:q} --crosscoder {params.folder:q} --selection {input.selection:q}"
        " --tokenizer {input.tokenizer:q} {params.settings:q} --seed {params.seed}"
        " --threads {threads} {params.speed:q} --output {output:q}"


rule explain_difference:
    """Hold what a crosscoder tells of two models' difference against two baselines."""
    input:
        unpack(lambda wildcards: PATHS.fit_inputs(fit_name(wildcards))),
        sae=f"{DIFFERENCE}/crosscoder.safetensors",
        crosscoder=lambda wildcards: (
            f"{PATHS.first_crosscoder(wildcards.comparison)}/crosscoder.safetensors"
        ),
        selection=lambda wildcards: PATHS.first_latents(wildcards.comparison, "selection"),
        tokens=PATHS.tokens,
    output:
        "<results>/latents/difference/{comparison}.csv",
    log:
        "<results>/logs/explain_difference/{comparison}.log",
    priority: CHAIN
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        **ON_GPU,
    params:
        **FOLDER,
        **step("latents.explain_difference"),
        inputs=for_comparison(FLAGS.difference),
        sae=folder_of_input("sae"),
        speed=speed("device"),
    shell:
        "logged {log:q} python -m {params.step}"
        " {params.inputs:q} --sae {params.sae:q} --crosscoder {params.folder:q}"
        " --selection {input.selection:q} --tokens {input.tokens:q}"
        " --threads {threads} {params.speed:q} --output {output:q}"
