"""Crosscoders: one per fit and seed, and how well each explains held-out text.

Reads activations and normalisers; leaves crosscoder.safetensors, training.csv and evaluation.json.
"""

CROSSCODER = "<results>/crosscoder/{fit}/seed{seed}"
DIFFERENCE = "<results>/crosscoder/difference/{comparison}"
IMPORTED = [name for name, fit in SETTINGS.fits.items() if fit.imported is not None]
FITTED = [name for name in SETTINGS.fits if name not in IMPORTED]
# A crosscoder's folder, and what steps share that encode activations with it.
FOLDER = {"folder": folder_of_input("crosscoder")}
ENCODES = {**FOLDER, "inputs": for_fit(FLAGS.activations), "speed": speed("device")}


rule fit_crosscoder:
    """Fit a crosscoder; a killed fit continues from its checkpoint."""
    input:
        unpack(for_fit(PATHS.fit_inputs)),
    output:
        f"{CROSSCODER}/crosscoder.safetensors",
        f"{CROSSCODER}/crosscoder.json",
        f"{CROSSCODER}/training.csv",
    log:
        "<results>/logs/fit_crosscoder/{fit}_seed{seed}.log",
    benchmark:
        "<results>/logs/fit_crosscoder/{fit}_seed{seed}.tsv"
    wildcard_constraints:
        fit=one_of(FITTED),
    priority: CHAIN
    conda:
        "../envs/torch.yaml"
    threads: lambda wildcards: SETTINGS.fits[wildcards.fit].processes
    resources:
        **SIZED,
        gpu=lambda wildcards: GPU * SETTINGS.fits[wildcards.fit].processes,
    params:
        **step("crosscoder.fit_crosscoder"),
        inputs=for_fit(FLAGS.activations),
        settings=for_fit(FLAGS.training),
        seed=lambda wildcards: wildcards.seed,
        checkpoint=lambda wildcards: FLAGS.checkpoint(wildcards.fit, wildcards.seed),
        folder=folder_of(),
        launcher=lambda wildcards, threads: FLAGS.launcher(wildcards.fit),
        speed=speed("device"),
    shell:
        "logged {log:q}"
        " {params.launcher:q} -m {params.step} {params.speed:q}"
        " {params.inputs:q} {params.settings:q} --seed {params.seed} --threads {threads}"
        " --checkpoint {params.checkpoint:q} --output-dir {params.folder:q}"


use rule fit_crosscoder as fit_difference with:
    """Fit a sparse autoencoder on a direct comparison's difference of activations."""
    input:
        unpack(lambda wildcards: PATHS.fit_inputs(fit_name(wildcards))),
    output:
        f"{DIFFERENCE}/crosscoder.safetensors",
        f"{DIFFERENCE}/crosscoder.json",
        f"{DIFFERENCE}/training.csv",
    log:
        "<results>/logs/fit_difference/{comparison}.log",
    benchmark:
        "<results>/logs/fit_difference/{comparison}.tsv"
    threads: lambda wildcards: SETTINGS.fits[fit_name(wildcards)].processes
    resources:
        **SIZED,
        gpu=lambda wildcards: GPU * SETTINGS.fits[fit_name(wildcards)].processes,
    params:
        inputs=for_comparison(FLAGS.difference),
        settings=for_comparison(FLAGS.difference_training),
        seed=lambda wildcards: SETTINGS.fits[fit_name(wildcards)].seeds[0],
        checkpoint=for_comparison(FLAGS.difference_checkpoint),
        launcher=lambda wildcards, threads: FLAGS.launcher(fit_name(wildcards)),


if IMPORTED:

    rule import_crosscoder:
        """Bring a published crosscoder into the run's normalised space."""
        input:
            unpack(for_fit(PATHS.fit_inputs)),
            published=lambda wildcards: ancient(PATHS.imported_files(wildcards.fit)),
        output:
            f"{CROSSCODER}/crosscoder.safetensors",
            f"{CROSSCODER}/crosscoder.json",
        log:
            "<results>/logs/import_crosscoder/{fit}_seed{seed}.log",
        wildcard_constraints:
            fit=one_of(IMPORTED),
        conda:
            "../envs/torch.yaml"
        threads: 1
        resources:
            **SIZED,
        params:
            **step("crosscoder.import_crosscoder"),
            inputs=for_fit(FLAGS.activations),
            source=lambda wildcards: flags(SETTINGS.fits[wildcards.fit].imported),
            folder=folder_of(),
        shell:
            "logged {log:q} python -m {params.step}"
            " {params.inputs:q} {params.source:q} --threads {threads}"
            " --output-dir {params.folder:q}"


rule evaluate_crosscoder:
    """Measure FVE, L0 in both modes and the dead share on held-out documents."""
    input:
        unpack(for_fit(PATHS.fit_inputs)),
        crosscoder=f"{CROSSCODER}/crosscoder.safetensors",
        documents=PATHS.documents,
    output:
        f"{CROSSCODER}/evaluation.json",
    log:
        "<results>/logs/evaluate_crosscoder/{fit}_seed{seed}.log",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        **ON_GPU,
    params:
        **ENCODES,
        **step("crosscoder.evaluate_crosscoder"),
    shell:
        "logged {log:q} python -m {params.step}"
        " {params.inputs:q} --crosscoder {params.folder:q} --documents {input.documents:q}"
        " --threads {threads} {params.speed:q} --output {output:q}"
