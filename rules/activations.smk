"""Activations: what each model computes on the text, and the scale on which fits read it.

Reads manifests and token shards; leaves dumps in the store (a file per model, layer group and
shard) and a normaliser per model and layer.
"""

DUMP = "results/store/{key}/{model}/{group}"


rule dump_activations:
    """Run one model over one token shard and store the layers of a group."""
    input:
        model=lambda wildcards: manifest(wildcards.model),
        tokens=lambda wildcards: TOKEN_SHARDS[number(wildcards.shard)],
    output:
        f"{DUMP}/{{shard}}.h5",
    log:
        f"{DUMP}/logs/{{shard}}.log",
    benchmark:
        f"{DUMP}/logs/{{shard}}.tsv"
    priority: CHAIN
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=asked("dump_activations", "mem_mb"),
        runtime=asked("dump_activations", "runtime"),
        gpu=GPUS,
    params:
        layers=lambda wildcards: SETTINGS.layers[wildcards.group],
        settings=flags(SETTINGS.activations, "dtype", "compute_dtype"),
        means=means("batch_tokens", "device", "gpus"),
        facts=facts("activations.dump_activations"),
    shell:
        "HF_HUB_OFFLINE=1 logged {log:q} python -m workflow_scripts.activations.dump_activations"
        " --model {input.model:q} --tokens {input.tokens:q} --layers {params.layers}"
        " {params.settings:q} {params.means:q} --threads {threads} --facts {params.facts:q}"
        " --output {output:q}"


rule fit_normalizer:
    """Estimate mean, scale and outlier bound of a model at a layer on the calibration split."""
    input:
        lambda wildcards: dump_files(wildcards.model, int(wildcards.layer)),
    output:
        "<results>/activations/{model}/layer{layer}/normalizer.h5",
    log:
        "<results>/logs/fit_normalizer/{model}_layer{layer}.log",
    wildcard_constraints:
        layer="[0-9]+",
    priority: CHAIN
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=asked("fit_normalizer", "mem_mb"),
        runtime=asked("fit_normalizer", "runtime"),
    params:
        bound=SETTINGS.activations.norm_bound,
        facts=facts("activations.fit_normalizer"),
    shell:
        "logged {log:q} python -m workflow_scripts.activations.fit_normalizer"
        " --activations {input:q} --layer {wildcards.layer} --norm-bound {params.bound}"
        " --facts {params.facts:q} --output {output:q}"
