"""Text: documents from the sources, then token shards that every model reads alike.

Reads the sources of `text`; leaves tables of documents and token shards, and the run's manifest of
both. They lie in the store, under the digest of all that they depend on but the token budget:
each shard goes on where the one before ended.
"""

# Data sets of a hub are read over the network, which nodes of a cluster often lack.
FETCHES_TEXT = any(source.kind == "huggingface" for source in SETTINGS.text.sources.values())
TEXT = "results/store/{key}/documents"
TOKENS = "results/store/{key}/tokens"


rule sample_documents:
    """Draw the documents of a shard by seed, mix and tokens, behind those of the shard before."""
    input:
        files=ancient(text_files()),
        earlier=lambda wildcards: [f"{d}.parquet" for d in DOCUMENTS[: number(wildcards.shard)]],
        state=lambda wildcards: [f"{d}.json" for d in DOCUMENTS[: number(wildcards.shard)]][-1:],
    output:
        documents=f"{TEXT}/{{shard}}.parquet",
        manifest=f"{TEXT}/{{shard}}.json",
    log:
        f"{TEXT}/logs/{{shard}}.log",
    localrule: FETCHES_TEXT
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=asked("sample_documents", "mem_mb"),
        runtime=asked("sample_documents", "runtime"),
    params:
        sources=as_json(SETTINGS.text.model_dump(exclude_none=True)["sources"]),
        splits=as_json(SETTINGS.text.splits.model_dump()),
        tokens=lambda wildcards: min(
            (number(wildcards.shard) + 1) * SETTINGS.text.shard_tokens, SETTINGS.text.tokens
        ),
        context=SETTINGS.text.context_length,
        bytes_per_token=SETTINGS.text.bytes_per_token,
        seed=SETTINGS.seed,
        state=lambda wildcards, input: [f"--state={path}" for path in input.state],
        facts=facts("dataset.sample_documents"),
    shell:
        "logged {log:q} python -m workflow_scripts.dataset.sample_documents"
        " --sources {params.sources:q} --tokens {params.tokens}"
        " --context-length {params.context}"
        " --bytes-per-token {params.bytes_per_token}"
        " --splits {params.splits:q} --seed {params.seed} --facts {params.facts:q}"
        " --earlier {input.earlier:q} {params.state:q}"
        " --output {output.documents:q} --manifest {output.manifest:q}"


rule tokenize_documents:
    """Cut documents into a token shard with the tokenizer on which all models agree."""
    input:
        documents=lambda wildcards: [
            f"{documents}.parquet" for documents in DOCUMENTS[: number(wildcards.shard) + 1]
        ],
        tokenizers=[manifest(model) for model in store_keys.tokenizer_models(SETTINGS)],
        template=SETTINGS.text.template or [],
        previous=lambda wildcards: [
            str(Path(file).with_suffix(".json"))
            for file in TOKEN_SHARDS[: number(wildcards.shard)][-1:]
        ],
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
        mem_mb=asked("tokenize_documents", "mem_mb"),
        runtime=asked("tokenize_documents", "runtime"),
    params:
        tokenizers=[
            f"--tokenizer={model}={manifest(model)}"
            for model in store_keys.tokenizer_models(SETTINGS)
        ],
        template=f"--template={SETTINGS.text.template}" if SETTINGS.text.template else [],
        tokens=lambda wildcards: store_keys.shard_tokens(SETTINGS, number(wildcards.shard)),
        context=SETTINGS.text.context_length,
        previous=lambda wildcards, input: [f"--previous={path}" for path in input.previous],
        facts=facts("dataset.tokenize_documents"),
    shell:
        "logged {log:q} python -m workflow_scripts.dataset.tokenize_documents"
        " --documents {input.documents:q} {params.tokenizers:q} {params.template:q}"
        " --tokens {params.tokens} --context-length {params.context}"
        " {params.previous:q} --facts {params.facts:q}"
        " --output {output.shard:q} --manifest {output.manifest:q}"


rule describe_text:
    """Sum up the run's text; refuse it early where a split is empty."""
    input:
        documents=[f"{documents}.json" for documents in DOCUMENTS],
        shards=[str(Path(file).with_suffix(".json")) for file in TOKEN_SHARDS],
    output:
        "<results>/dataset/manifest.json",
    log:
        "<results>/logs/describe_text.log",
    priority: 50
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        splits=as_json(SETTINGS.text.splits.model_dump()),
        tokens=SETTINGS.text.tokens,
        facts=facts("dataset.describe_text"),
    shell:
        "logged {log:q} python -m workflow_scripts.dataset.describe_text"
        " --documents {input.documents:q} --shards {input.shards:q} --splits {params.splits:q}"
        " --tokens {params.tokens} --facts {params.facts:q} --output {output:q}"
