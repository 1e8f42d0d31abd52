"""Models: those that the workflow trains itself, and those from folders or the hub.

Leaves a manifest per model, model.json, for trained ones the weights and the planted table, and
how far the weights of compared models are apart. Models are in the store, under a digest of all that they depend on.
"""

from workflow_scripts.models.settings import WeightComparison

ORGANISMS = [name for name, model in SETTINGS.models.items() if model.organism]
OTHERS = [name for name, model in SETTINGS.models.items() if not model.organism]
GGUFS = [name for name, model in SETTINGS.models.items() if model.gguf]
MODEL = "results/store/{key}/{model}"
CONVERTED = f"results/store/{{key}}/{PATHS.converted}"


if ORGANISMS:

    rule train_organism:
        """Train one small model on documents of known categories."""
        input:
            lambda wildcards: PATHS.base_manifest(wildcards.model),
        output:
            f"{MODEL}/model.json",
            f"{MODEL}/config.json",
            f"{MODEL}/model.safetensors",
            f"{MODEL}/tokenizer.json",
            f"{MODEL}/training.csv",
        log:
            f"{MODEL}/logs/train_organism.log",
        benchmark:
            f"{MODEL}/logs/train_organism.tsv"
        wildcard_constraints:
            model=one_of(ORGANISMS),
        conda:
            "../envs/torch.yaml"
        threads: lambda wildcards: 1 if PATHS.base_manifest(wildcards.model) else 2
        resources:
            **SIZED,
        params:
            **step("models.train_organism"),
            base=lambda wildcards, input: [f"--base={input}"] if input else [],
            training=lambda wildcards: FLAGS.lessons(wildcards.model),
            folder=folder_of(),
        shell:
            "logged {log:q} python -m {params.step}"
            " --name {wildcards.model} {params.base:q} {params.training:q} --threads {threads}"
            " --output-dir {params.folder:q}"


if PLANTED_PAIRS:

    rule tabulate_planted:
        """Write what each category was planted as in each compared pair of trained models."""
        input:
            tokenizer=PATHS.manifest(store_keys.root(SETTINGS, PLANTED_PAIRS[0][0])),
            taxonomy=TAXONOMY,
        output:
            "<results>/models/planted.csv",
        log:
            "<results>/logs/tabulate_planted.log",
        conda:
            "../envs/torch.yaml"
        params:
            **step("models.tabulate_planted"),
            taught=as_json(
                {m: comparisons.taught(SETTINGS, m) for pair in PLANTED_PAIRS for m in pair}
            ),
            baselines=[baseline for baseline, _ in PLANTED_PAIRS],
            candidates=[candidate for _, candidate in PLANTED_PAIRS],
            seed=SETTINGS.organism.document_seed,
        shell:
            "logged {log:q} python -m {params.step}"
            " --tokenizer {input.tokenizer:q} --taught {params.taught:q}"
            " --baselines {params.baselines} --candidates {params.candidates}"
            " --document-seed {params.seed} --taxonomy {input.taxonomy:q} --output {output:q}"


rule compare_weights:
    """Compare the weights of a direct comparison's models, by module and layer."""
    input:
        unpack(for_comparison(PATHS.compared_manifests)),
    output:
        "<results>/models/weights/{comparison}.csv",
    log:
        "<results>/logs/compare_weights/{comparison}.log",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        **ON_GPU,
    params:
        **step("models.compare_weights"),
        settings=flags(SETTINGS.comparison, WeightComparison),
        speed=speed("device"),
    shell:
        "HF_HUB_OFFLINE=1 logged {log:q} python -m {params.step}"
        " --baseline {input.baseline:q} --candidate {input.candidate:q} {params.settings:q}"
        " --threads {threads} {params.speed:q} --output {output:q}"


rule download_models:
    """Fetch every hub model at its pinned revision; on a cluster, from the login node."""
    input:
        [PATHS.manifest(name) for name, model in SETTINGS.models.items() if model.hub],
    localrule: True


if GGUFS:

    rule convert_gguf:
        """Write a GGUF file's model as a folder in Hugging Face format."""
        input:
            lambda wildcards: ancient(PATHS.gguf_file(wildcards.key)),
        output:
            [f"{CONVERTED}/{file}" for file in ("config.json", "gguf.json", "model.safetensors")],
            f"{CONVERTED}/tokenizer.json",
        log:
            f"{CONVERTED}/logs/convert_gguf.log",
        conda:
            "../envs/torch.yaml"
        resources:
            **SIZED,
        params:
            **step("models.convert_gguf"),
            folder=folder_of(),
        shell:
            "HF_HUB_OFFLINE=1 logged {log:q} python -m {params.step}"
            " --gguf {input:q} --output-dir {params.folder:q}"


if OTHERS:

    rule resolve_model:
        """Write the manifest of a folder, or of a pinned hub model after fetching it."""
        input:
            lambda wildcards: ancient(PATHS.model_files(wildcards.model)),
        output:
            f"{MODEL}/model.json",
        log:
            f"{MODEL}/logs/resolve_model.log",
        wildcard_constraints:
            model=one_of(OTHERS),
        localrule: True
        conda:
            "../envs/torch.yaml"
        params:
            **step("models.resolve_model"),
            source=lambda wildcards: FLAGS.model_source(wildcards.model),
        shell:
            "logged {log:q} python -m {params.step}"
            " --name {wildcards.model} {params.source:q} --output {output:q}"
