"""Crosscoders: one per fit and seed, and how well each explains held-out text.

Reads activations and normalisers; leaves crosscoder.safetensors, training.csv, evaluation.json,
and loss.csv, for which the models run.
"""

CROSSCODER = "<results>/crosscoder/{fit}/seed{seed}"
DIFFERENCE = "<results>/crosscoder/difference/{comparison}"


rule fit_crosscoder:
    """Fit a crosscoder; a killed fit goes on from its checkpoint."""
    input:
        unpack(lambda wildcards: fit_inputs(wildcards.fit)),
    output:
        f"{CROSSCODER}/crosscoder.safetensors",
        f"{CROSSCODER}/crosscoder.json",
        f"{CROSSCODER}/training.csv",
    log:
        "<results>/logs/fit_crosscoder/{fit}_seed{seed}.log",
    benchmark:
        "<results>/logs/fit_crosscoder/{fit}_seed{seed}.tsv"
    wildcard_constraints:
        fit="|".join(FITTED) or "-",
    priority: CHAIN
    conda:
        "../envs/torch.yaml"
    threads: lambda wildcards: SETTINGS.fits[wildcards.fit].processes
    resources:
        gpu=lambda wildcards: GPU * SETTINGS.fits[wildcards.fit].processes,
        mem_mb=asked("fit_crosscoder", "mem_mb"),
        runtime=asked("fit_crosscoder", "runtime"),
    params:
        inputs=lambda wildcards: fit_flags(wildcards.fit),
        settings=lambda wildcards: training_flags(wildcards.fit),
        checkpoint=lambda wildcards: checkpoint(wildcards.fit, wildcards.seed),
        facts=facts("crosscoder.fit_crosscoder"),
        folder=lambda wildcards, output: str(Path(output[0]).parent),
        launcher=lambda wildcards, threads: launcher(wildcards.fit),
        means=means("device"),
    shell:
        "logged {log:q}"
        " {params.launcher:q} -m workflow_scripts.crosscoder.fit_crosscoder {params.means:q}"
        " {params.inputs:q} {params.settings:q} --seed {wildcards.seed} --threads {threads}"
        " --facts {params.facts:q} --checkpoint {params.checkpoint:q}"
        " --output-dir {params.folder:q}"


if IMPORTED:

    rule import_crosscoder:
        """Bring a published crosscoder into the run's normalised space."""
        input:
            unpack(lambda wildcards: fit_inputs(wildcards.fit)),
            published=lambda wildcards: ancient(import_files(wildcards.fit)),
        output:
            f"{CROSSCODER}/crosscoder.safetensors",
            f"{CROSSCODER}/crosscoder.json",
        log:
            "<results>/logs/import_crosscoder/{fit}_seed{seed}.log",
        wildcard_constraints:
            fit="|".join(IMPORTED),
        localrule: True
        conda:
            "../envs/torch.yaml"
        threads: 1
        params:
            inputs=lambda wildcards: fit_flags(wildcards.fit),
            source=lambda wildcards: flags(SETTINGS.fits[wildcards.fit].imported),
            facts=facts("crosscoder.import_crosscoder"),
            folder=lambda wildcards, output: str(Path(output[0]).parent),
        shell:
            "logged {log:q} python -m workflow_scripts.crosscoder.import_crosscoder"
            " {params.inputs:q} {params.source:q} --threads {threads}"
            " --facts {params.facts:q} --output-dir {params.folder:q}"


rule fit_difference:
    """Fit a sparse autoencoder on a direct comparison's difference of activations."""
    input:
        unpack(lambda wildcards: fit_inputs(direct_name(wildcards.comparison))),
    output:
        f"{DIFFERENCE}/crosscoder.safetensors",
        f"{DIFFERENCE}/crosscoder.json",
        f"{DIFFERENCE}/training.csv",
    log:
        "<results>/logs/fit_difference/{comparison}.log",
    benchmark:
        "<results>/logs/fit_difference/{comparison}.tsv"
    priority: CHAIN
    conda:
        "../envs/torch.yaml"
    threads: lambda wildcards: direct_fit(wildcards.comparison).processes
    resources:
        gpu=lambda wildcards: GPU * direct_fit(wildcards.comparison).processes,
        mem_mb=asked("fit_difference", "mem_mb"),
        runtime=asked("fit_difference", "runtime"),
    params:
        inputs=lambda wildcards: difference_flags(wildcards.comparison),
        settings=lambda wildcards: difference_training(wildcards.comparison),
        seed=lambda wildcards: direct_fit(wildcards.comparison).seeds[0],
        checkpoint=lambda wildcards: difference_checkpoint(wildcards.comparison),
        facts=facts("crosscoder.fit_crosscoder"),
        folder=lambda wildcards, output: str(Path(output[0]).parent),
        launcher=lambda wildcards, threads: launcher(direct_name(wildcards.comparison)),
        means=means("device"),
    shell:
        "logged {log:q}"
        " {params.launcher:q} -m workflow_scripts.crosscoder.fit_crosscoder {params.means:q}"
        " {params.inputs:q} {params.settings:q} --seed {params.seed} --threads {threads}"
        " --facts {params.facts:q} --checkpoint {params.checkpoint:q}"
        " --output-dir {params.folder:q}"


rule evaluate_crosscoder:
    """Measure FVE, L0 in both modes and the dead share on held-out documents."""
    input:
        unpack(lambda wildcards: fit_inputs(wildcards.fit)),
        crosscoder=f"{CROSSCODER}/crosscoder.safetensors",
        documents=[f"{documents}.parquet" for documents in DOCUMENTS],
    output:
        f"{CROSSCODER}/evaluation.json",
    log:
        "<results>/logs/evaluate_crosscoder/{fit}_seed{seed}.log",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=asked("evaluate_crosscoder", "mem_mb"),
        runtime=asked("evaluate_crosscoder", "runtime"),
    params:
        code=store_keys.step_digest("crosscoder.evaluate_crosscoder"),
        inputs=lambda wildcards: fit_flags(wildcards.fit),
        folder=lambda wildcards, input: str(Path(input.crosscoder).parent),
        means=means("device"),
    shell:
        "logged {log:q} python -m workflow_scripts.crosscoder.evaluate_crosscoder"
        " {params.inputs:q} --crosscoder {params.folder:q} --documents {input.documents:q}"
        " --threads {threads} {params.means:q} --output {output:q}"


rule recover_loss:
    """Let models predict from what a crosscoder reconstructs, and from ablated activations."""
    input:
        models=lambda wildcards: [manifest(m) for m in SETTINGS.fits[wildcards.fit].models],
        crosscoder=f"{CROSSCODER}/crosscoder.safetensors",
        normalizers=lambda wildcards: fit_inputs(wildcards.fit)["normalizers"],
        tokens=TOKEN_SHARDS,
        documents=[f"{documents}.parquet" for documents in DOCUMENTS],
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
        gpu=GPU,
        mem_mb=asked("recover_loss", "mem_mb"),
        runtime=asked("recover_loss", "runtime"),
    params:
        code=store_keys.step_digest("interventions.recover_loss"),
        models=lambda wildcards: [
            f"--model={m}={manifest(m)}" for m in SETTINGS.fits[wildcards.fit].models
        ],
        inputs=lambda wildcards: loss_flags(wildcards.fit),
        folder=lambda wildcards, input: str(Path(input.crosscoder).parent),
        seed=SETTINGS.seed,
        means=means("batch_tokens", "device"),
    shell:
        "HF_HUB_OFFLINE=1 logged {log:q} python -m workflow_scripts.interventions.recover_loss"
        " {params.models:q} --crosscoder {params.folder:q} {params.inputs:q} {params.means:q}"
        " --tokens {input.tokens:q} --sources {input.documents:q} --seed {params.seed}"
        " --threads {threads} --output {output:q}"
