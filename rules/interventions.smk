"""Interventions: what latents cause, by running the models with changed activations.

Reads models, crosscoders, normalisers, tokens and latents; leaves loss.csv beside each crosscoder,
and tables of patched and of ablated latents per direct comparison.
"""


rule recover_loss:
    """Let models predict from what a crosscoder reconstructs, and from ablated activations."""
    input:
        models=lambda wildcards: [PATHS.manifest(m) for m in SETTINGS.fits[wildcards.fit].models],
        crosscoder=f"{CROSSCODER}/crosscoder.safetensors",
        normalizers=lambda wildcards: PATHS.fit_inputs(wildcards.fit)["normalizers"],
        tokens=PATHS.tokens,
        documents=PATHS.documents,
    output:
        f"{CROSSCODER}/loss.csv",
    log:
        "<results>/logs/recover_loss/{fit}_seed{seed}.log",
    benchmark:
        "<results>/logs/recover_loss/{fit}_seed{seed}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        **ON_GPU,
    params:
        **FOLDER,
        **step("interventions.recover_loss"),
        models=for_fit(FLAGS.models_of_fit),
        inputs=for_fit(FLAGS.loss),
        seed=SETTINGS.seed,
        speed=speed("batch_tokens", "device"),
    shell:
        "HF_HUB_OFFLINE=1 logged {log:q} python -m {params.step}"
        " {params.models:q} --crosscoder {params.folder:q} {params.inputs:q} {params.speed:q}"
        " --tokens {input.tokens:q} --sources {input.documents:q} --seed {params.seed}"
        " --threads {threads} --output {output:q}"


rule patch_latents:
    """Patch one model's latents into the other and see how far its predictions follow."""
    input:
        unpack(for_comparison(PATHS.patching_inputs)),
        latents=lambda wildcards: PATHS.first_latents(wildcards.comparison, "latents"),
        selection=lambda wildcards: PATHS.first_latents(wildcards.comparison, "selection"),
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
        **ON_GPU,
    params:
        **step("interventions.patch_latents"),
        models=lambda wildcards: FLAGS.models_of_fit(fit_name(wildcards)),
        pair=lambda wildcards: comparisons.models_of(SETTINGS, wildcards.comparison),
        inputs=for_comparison(FLAGS.cause),
        seed=SETTINGS.seed,
        speed=speed("batch_tokens", "device"),
    shell:
        "HF_HUB_OFFLINE=1 logged {log:q} python -m {params.step}"
        " {params.models:q} --pair {params.pair} {params.inputs:q} {params.speed:q}"
        " --latents {input.latents:q} --selection {input.selection:q} --tokens {input.tokens:q}"
        " --seed {params.seed} --threads {threads} --output {output:q}"


rule ablate_categories:
    """Take each category's unique latents away and see whose text becomes harder to predict."""
    input:
        unpack(for_comparison(PATHS.patching_inputs)),
        labels=lambda wildcards: files_of(PATHS.first_labelled(wildcards.comparison)),
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
        **ON_GPU,
    params:
        **step("interventions.ablate_categories"),
        fit=lambda wildcards: in_order(PATHS.first_labelled(wildcards.comparison)),
        pair=lambda wildcards: comparisons.models_of(SETTINGS, wildcards.comparison),
        models=lambda wildcards: FLAGS.models_of_fit(fit_name(wildcards)),
        inputs=for_comparison(FLAGS.cause),
        rule_=flags(SETTINGS.comparison, "labeller", "confidence"),
        speed=speed("batch_tokens", "device"),
    shell:
        "HF_HUB_OFFLINE=1 logged {log:q} python -m {params.step}"
        " --comparison {wildcards.comparison} --pair {params.pair} --fit {params.fit:q}"
        " {params.models:q} {params.inputs:q} {params.rule_:q} {params.speed:q}"
        " --tokens {input.tokens:q} --taxonomy {input.taxonomy:q}"
        " --threads {threads} --output {output:q}"
