"""Activations."""

DUMP = "results/store/{key}/{model}/{group}"


rule dump_activations:
    input:
        model=f"results/store/{{key}}/{{model}}/model.json",
    output:
        f"{DUMP}/{{shard}}.h5",
    shell:
        "true"


rule fit_normalizer:
    output:
        "<results>/activations/{model}/layer{layer}/normalizer.h5",
    shell:
        "true"
