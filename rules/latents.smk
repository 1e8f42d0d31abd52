"""Latents: their scores, the rule that makes one unique to a model, and their contexts.

Reads crosscoders, activations and tokens; leaves latents.parquet, selection.parquet,
examples.parquet and background.parquet.
"""

from workflow_scripts.latents.settings import Selection

LATENTS = "<results>/latents/{fit}/seed{seed}"
CROSSCODER_FILE = "crosscoder.safetensors"


rule score_latents:
    """Score every latent: decoder norms, latent scaling with errors, activity."""
    input:
        unpack(lambda wildcards: fit_inputs(wildcards.fit)),
        crosscoder=f"{CROSSCODER}/crosscoder.safetensors",
        tokens=TOKEN_SHARDS,
        documents=[f"{documents}.parquet" for documents in DOCUMENTS],
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
        gpu=GPU,
        mem_mb=asked("score_latents", "mem_mb"),
        runtime=asked("score_latents", "runtime"),
    params:
        code=store_keys.step_digest("latents.score_latents"),
        inputs=lambda wildcards: fit_flags(wildcards.fit),
        folder=lambda wildcards, input: str(Path(input.crosscoder).parent),
        rule_=flags(
            SETTINGS.latents, "nu_r", "nu_e", "nu_lower", "min_documents", "min_beta", "groups"
        ),
        means=means("device"),
    shell:
        "logged {log:q} python -m workflow_scripts.latents.score_latents"
        " {params.inputs:q} --tokens {input.tokens:q} --documents {input.documents:q}"
        " --crosscoder {params.folder:q} {params.rule_:q}"
        " --threads {threads} {params.means:q} --output {output:q}"


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
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("latents.select_latents"),
        models=lambda wildcards: SETTINGS.fits[wildcards.fit].models,
        rule_=flags(SETTINGS.latents, Selection),
    shell:
        "logged {log:q} python -m workflow_scripts.latents.select_latents"
        " --latents {input:q} --models {params.models:q} {params.rule_:q}"
        " --selection {output.selection:q} --summary {output.summary:q}"


rule collect_examples:
    """Collect contexts of the unique latents and of a sample of the others."""
    input:
        unpack(lambda wildcards: fit_inputs(wildcards.fit)),
        crosscoder=f"{CROSSCODER}/crosscoder.safetensors",
        selection=f"{LATENTS}/selection.parquet",
        tokens=TOKEN_SHARDS,
        tokenizer=manifest(store_keys.tokenizer_models(SETTINGS)[0]),
    output:
        examples=f"{LATENTS}/examples.parquet",
        background=f"{LATENTS}/background.parquet",
    log:
        "<results>/logs/collect_examples/{fit}_seed{seed}.log",
    benchmark:
        "<results>/logs/collect_examples/{fit}_seed{seed}.tsv"
    priority: CHAIN
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=asked("collect_examples", "mem_mb"),
        runtime=asked("collect_examples", "runtime"),
    params:
        code=store_keys.step_digest("latents.collect_examples"),
        inputs=lambda wildcards: fit_flags(wildcards.fit),
        folder=lambda wildcards, input: str(Path(input.crosscoder).parent),
        sizes=flags(SETTINGS.latents.examples, "shared_latents", "window", "pool"),
        explain=list(SETTINGS.latents.examples.explain.model_dump().values()),
        verify=list(SETTINGS.latents.examples.verify.model_dump().values()),
        seed=SETTINGS.seed,
        allocator=RETURN_BUFFERS,
        means=means("device"),
    shell:
        "logged {log:q} {params.allocator} python -m workflow_scripts.latents.collect_examples"
        " {params.inputs:q} --tokens {input.tokens:q} --crosscoder {params.folder:q}"
        " --selection {input.selection:q} --tokenizer {input.tokenizer:q} {params.sizes:q}"
        " --explain-counts {params.explain} --verify-counts {params.verify}"
        " --seed {params.seed} --threads {threads} {params.means:q}"
        " --examples {output.examples:q} --background {output.background:q}"


rule match_latents:
    """Match the latents of a fit's seeds: which come back."""
    input:
        unpack(lambda wildcards: fit_inputs(wildcards.fit)),
        crosscoders=lambda wildcards: seed_outputs(wildcards.fit, "crosscoder", CROSSCODER_FILE),
        selections=lambda wildcards: seed_outputs(wildcards.fit, "latents", "selection.parquet"),
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
        gpu=GPU,
        mem_mb=asked("match_latents", "mem_mb"),
        runtime=asked("match_latents", "runtime"),
    params:
        code=store_keys.step_digest("latents.match_latents"),
        inputs=lambda wildcards: fit_flags(wildcards.fit),
        seeds=lambda wildcards: match_flags(wildcards.fit),
        folder=lambda wildcards, output: str(Path(output.matches).parent),
        sizes=[
            f"--sample={SETTINGS.latents.match_tokens}",
            f"--least={SETTINGS.latents.match_least}",
        ],
        seed=SETTINGS.seed,
        means=means("device"),
    shell:
        "logged {log:q} python -m workflow_scripts.latents.match_latents"
        " {params.inputs:q} {params.seeds:q} {params.sizes:q} --seed {params.seed}"
        " --threads {threads} {params.means:q} --output-dir {params.folder:q}"


rule pair_mirrors:
    """Pair latents of two models that fire for the same text in one crosscoder."""
    input:
        unpack(lambda wildcards: fit_inputs(wildcards.fit)),
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
        gpu=GPU,
        mem_mb=asked("pair_mirrors", "mem_mb"),
        runtime=asked("pair_mirrors", "runtime"),
    params:
        code=store_keys.step_digest("latents.pair_mirrors"),
        inputs=lambda wildcards: fit_flags(wildcards.fit),
        folder=lambda wildcards, input: str(Path(input.crosscoder).parent),
        sizes=[
            f"--sample={SETTINGS.latents.match_tokens}",
            f"--least={SETTINGS.latents.match_least}",
        ],
        seed=SETTINGS.seed,
        means=means("device"),
    shell:
        "logged {log:q} python -m workflow_scripts.latents.pair_mirrors"
        " {params.inputs:q} --crosscoder {params.folder:q} --selection {input.selection:q}"
        " {params.sizes:q} --seed {params.seed}"
        " --threads {threads} {params.means:q} --output {output:q}"


rule explain_difference:
    """Hold what a crosscoder tells of two models' difference against two baselines."""
    input:
        unpack(lambda wildcards: fit_inputs(direct_name(wildcards.comparison))),
        sae=f"{DIFFERENCE}/crosscoder.safetensors",
        crosscoder=lambda wildcards: (
            f"{RESULTS}/crosscoder/{comparison_seed(wildcards.comparison)}/{CROSSCODER_FILE}"
        ),
        selection=lambda wildcards: (
            f"{RESULTS}/latents/{comparison_seed(wildcards.comparison)}/selection.parquet"
        ),
        tokens=TOKEN_SHARDS,
    output:
        "<results>/latents/difference/{comparison}.csv",
    log:
        "<results>/logs/explain_difference/{comparison}.log",
    priority: CHAIN
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=asked("explain_difference", "mem_mb"),
        runtime=asked("explain_difference", "runtime"),
    params:
        code=store_keys.step_digest("latents.explain_difference"),
        inputs=lambda wildcards: difference_flags(wildcards.comparison),
        sae=lambda wildcards, input: str(Path(input.sae).parent),
        folder=lambda wildcards, input: str(Path(input.crosscoder).parent),
        means=means("device"),
    shell:
        "logged {log:q} python -m workflow_scripts.latents.explain_difference"
        " {params.inputs:q} --sae {params.sae:q} --crosscoder {params.folder:q}"
        " --selection {input.selection:q} --tokens {input.tokens:q}"
        " --threads {threads} {params.means:q}"
        " --output {output:q}"


rule patch_latents:
    """Patch one model's latents into the other and see how far its predictions follow."""
    input:
        unpack(lambda wildcards: cause_inputs(wildcards.comparison)),
        latents=lambda wildcards: scored(wildcards.comparison, "latents"),
        selection=lambda wildcards: scored(wildcards.comparison, "selection"),
    output:
        "<results>/latents/cause/{comparison}.csv",
    log:
        "<results>/logs/patch_latents/{comparison}.log",
    benchmark:
        "<results>/logs/patch_latents/{comparison}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=asked("patch_latents", "mem_mb"),
        runtime=asked("patch_latents", "runtime"),
    params:
        code=store_keys.step_digest("interventions.patch_latents"),
        inputs=lambda wildcards: cause_flags(wildcards.comparison),
        means=means("batch_tokens", "device"),
        models=lambda wildcards: patched_models(wildcards.comparison),
        seed=SETTINGS.seed,
    shell:
        "HF_HUB_OFFLINE=1 logged {log:q} python -m workflow_scripts.interventions.patch_latents"
        " {params.models:q} {params.inputs:q} {params.means:q}"
        " --latents {input.latents:q} --selection {input.selection:q} --tokens {input.tokens:q}"
        " --seed {params.seed} --threads {threads} --output {output:q}"
