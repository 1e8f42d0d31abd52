"""Activations: what each model computes on the text, and the scale on which fits read it.

Reads manifests and token shards; leaves dumps in the store (a file per model, layer group and
shard) and a normaliser per model and layer.
"""

from workflow_scripts.activations.settings import DumpNumbers, DumpSpeed, NormBound
from workflow_scripts.common.device import Device

DUMP = "results/store/{key}/{model}/{group}"


rule dump_activations:
    """Run one model over one token shard and store the layers of a group."""
    input:
        model=lambda wildcards: PATHS.manifest(wildcards.model),
        tokens=lambda wildcards: PATHS.tokens[shard_number(wildcards)],
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
        **SIZED,
        gpu=GPU * SETTINGS.activations.gpus,
    params:
        **step("activations.dump_activations"),
        layers=lambda wildcards: SETTINGS.layers[wildcards.group],
        numbers=flags(SETTINGS.activations, DumpNumbers),
        speed=speed(DumpSpeed, Device),
    shell:
        "HF_HUB_OFFLINE=1 logged {log:q} python -m {params.step}"
        " --model {input.model:q} --tokens {input.tokens:q} --layers {params.layers}"
        " {params.numbers:q} {params.speed:q} --threads {threads} --output {output:q}"


rule fit_normalizer:
    """Estimate mean, scale and outlier bound of a model at a layer on the calibration split."""
    input:
        lambda wildcards: PATHS.dumps(wildcards.model, int(wildcards.layer)),
    output:
        "<results>/activations/{model}/layer{layer}/normalizer.h5",
    log:
        "<results>/logs/fit_normalizer/{model}_layer{layer}.log",
    priority: CHAIN
    conda:
        "../envs/torch.yaml"
    resources:
        **SIZED,
    params:
        **step("activations.fit_normalizer"),
        settings=flags(SETTINGS.activations, NormBound),
    shell:
        "logged {log:q} python -m {params.step}"
        " --activations {input:q} --layer {wildcards.layer} {params.settings:q} --output {output:q}"
