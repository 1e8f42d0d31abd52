"""Text: documents from the sources, then token shards that every model reads alike.

Reads the sources of `text`; leaves tables of documents and token shards, and the run's manifest of
both. They are in the store, under a digest of all that they depend on except the token budget:
each shard continues where the previous one ended.
"""

from workflow_scripts.dataset.settings import Sampling, Splitting

# Data sets of a hub are read over the network, which nodes of a cluster often lack.
FETCHES_TEXT = any(source.kind == "huggingface" for source in SETTINGS.text.sources.values())
TEXT = "results/store/{key}/documents"
TOKENS = "results/store/{key}/tokens"


rule sample_documents:
    """Draw the documents of a shard by seed, mix and tokens, behind those of the shard before."""
    input:
        files=ancient(PATHS.text_files()),
        earlier=lambda wildcards: PATHS.documents[: shard_number(wildcards)],
        state=lambda wildcards: PATHS.document_manifests[: shard_number(wildcards)][-1:],
    output:
        documents=f"{TEXT}/{{shard}}.parquet",
        manifest=f"{TEXT}/{{shard}}.json",
    log:
        f"{TEXT}/logs/{{shard}}.log",
    localrule: FETCHES_TEXT
    conda:
        "../envs/tables.yaml"
    resources:
        **SIZED,
    params:
        **step("dataset.sample_documents"),
        sources=as_json(
            SETTINGS.text.model_dump(exclude_none=True, exclude=store_keys.LABELS_OF_SOURCES)[
                "sources"
            ]
        ),
        sampling=flags(SETTINGS.text, Sampling),
        tokens=lambda wildcards: store_keys.budget(SETTINGS, shard_number(wildcards)),
        seed=SETTINGS.seed,
        earlier=lambda wildcards, input: [f"--earlier={path}" for path in input.earlier],
        state=lambda wildcards, input: [f"--state={path}" for path in input.state],
        # By ``threads`` untracked: a larger budget redoes no shard.
        later=lambda wildcards, threads: FLAGS.later_shards(shard_number(wildcards)),
    shell:
        "logged {log:q} python -m {params.step}"
        " --sources {params.sources:q} {params.sampling:q} --tokens {params.tokens}"
        " --seed {params.seed} {params.earlier:q} {params.state:q} {params.later:q}"
        " --output {output.documents:q} --manifest {output.manifest:q}"


rule tokenize_documents:
    """Cut documents into a token shard with the tokenizer on which all models agree."""
    input:
        documents=lambda wildcards: PATHS.documents[: shard_number(wildcards) + 1],
        tokenizers=[PATHS.manifest(model) for model in store_keys.tokenizer_models(SETTINGS)],
        template=SETTINGS.text.template or [],
        previous=lambda wildcards: PATHS.token_manifests[: shard_number(wildcards)][-1:],
    output:
        shard=f"{TOKENS}/{{shard}}.h5",
        manifest=f"{TOKENS}/{{shard}}.json",
    log:
        f"{TOKENS}/logs/{{shard}}.log",
    benchmark:
        f"{TOKENS}/logs/{{shard}}.tsv"
    conda:
        "../envs/torch.yaml"
    resources:
        **SIZED,
    params:
        **step("dataset.tokenize_documents"),
        tokenizers=in_order(
            {model: PATHS.manifest(model) for model in store_keys.tokenizer_models(SETTINGS)}
        ),
        rendering=FLAGS.rendering(),
        tokens=lambda wildcards: store_keys.shard_tokens(SETTINGS, shard_number(wildcards)),
        previous=lambda wildcards, input: [f"--previous={path}" for path in input.previous],
    shell:
        "logged {log:q} python -m {params.step}"
        " --documents {input.documents:q} --tokenizers {params.tokenizers:q} {params.rendering:q}"
        " --tokens {params.tokens} {params.previous:q}"
        " --output {output.shard:q} --manifest {output.manifest:q}"


rule describe_text:
    """Sum up the run's text; refuse it early where a split is empty."""
    input:
        documents=PATHS.document_manifests,
        shards=PATHS.token_manifests,
    output:
        "<results>/dataset/manifest.json",
    log:
        "<results>/logs/describe_text.log",
    priority: 50
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        **step("dataset.describe_text"),
        splits=flags(SETTINGS.text, Splitting),
        tokens=SETTINGS.text.tokens,
    shell:
        "logged {log:q} python -m {params.step}"
        " --documents {input.documents:q} --shards {input.shards:q} {params.splits:q}"
        " --tokens {params.tokens} --output {output:q}"


rule label_documents:
    """Label the documents: columns and sources of the user's, and topics in the text."""
    input:
        PATHS.documents,
    output:
        labels=PATHS.labels,
        summary="<results>/dataset/labels.json",
    log:
        "<results>/logs/label_documents.log",
    benchmark:
        "<results>/logs/label_documents.tsv"
    priority: 50
    conda:
        "../envs/tables.yaml"
    resources:
        **SIZED,
    params:
        **step("dataset.label_documents"),
        labelling=FLAGS.labelling(),
        topics=flags(SETTINGS.text.topics),
        seed=SETTINGS.seed,
    shell:
        "logged {log:q} python -m {params.step}"
        " --documents {input:q} {params.labelling:q} {params.topics:q} --seed {params.seed}"
        " --output {output.labels:q} --summary {output.summary:q}"
