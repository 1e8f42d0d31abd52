"""Crosscoders: one per fit and seed, and how well each explains held-out text.

Reads activations and normalisers; leaves crosscoder.safetensors, training.csv, evaluation.json.
"""

CROSSCODER = "<results>/crosscoder/{fit}/seed{seed}"


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


rule evaluate_crosscoder:
    """Measure FVE, L0 in both modes and the dead share on held-out documents."""
    input:
        unpack(lambda wildcards: fit_inputs(wildcards.fit)),
        crosscoder=f"{CROSSCODER}/crosscoder.safetensors",
    output:
        f"{CROSSCODER}/evaluation.json",
    log:
        "<results>/logs/evaluate_crosscoder/{fit}_seed{seed}.log",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=asked("evaluate_crosscoder", "mem_mb"),
        runtime=asked("evaluate_crosscoder", "runtime"),
    params:
        code=keys.step_digest("crosscoder.evaluate_crosscoder"),
        inputs=lambda wildcards: fit_flags(wildcards.fit),
        folder=lambda wildcards, input: str(Path(input.crosscoder).parent),
    shell:
        "logged {log:q} python -m workflow_scripts.crosscoder.evaluate_crosscoder"
        " {params.inputs:q} --crosscoder {params.folder:q} --threads {threads}"
        " --output {output:q}"
