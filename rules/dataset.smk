"""Text: documents from the sources, then token shards that every model reads alike.

Reads the sources of `text`; leaves documents.parquet, its manifest, and the token shards. They lie
in the store, under the digest of all that they depend on.
"""


rule sample_documents:
    """Draw documents by seed, mix and token budget."""
    input:
        ancient(text_files()),
    output:
        documents=f"{DOCUMENTS}/documents.parquet",
        manifest=f"{DOCUMENTS}/manifest.json",
    log:
        f"{DOCUMENTS}/logs/sample_documents.log",
    conda:
        "../envs/tables.yaml"
    resources:
        mem_mb=asked("sample_documents", "mem_mb"),
        runtime=asked("sample_documents", "runtime"),
    params:
        sources=as_json(SETTINGS.text.model_dump(exclude_none=True)["sources"]),
        splits=as_json(SETTINGS.text.splits.model_dump()),
        tokens=SETTINGS.text.tokens,
        context=SETTINGS.text.context_length,
        bytes_per_token=SETTINGS.text.bytes_per_token,
        seed=SETTINGS.seed,
        facts=facts("dataset.sample_documents"),
    shell:
        "logged {log:q} python -m workflow_scripts.dataset.sample_documents"
        " --sources {params.sources:q} --tokens {params.tokens}"
        " --context-length {params.context}"
        " --bytes-per-token {params.bytes_per_token}"
        " --splits {params.splits:q} --seed {params.seed} --facts {params.facts:q}"
        " --output {output.documents:q} --manifest {output.manifest:q}"


rule tokenize_documents:
    """Cut the documents into token shards with the tokenizer on which all models agree."""
    input:
        documents=f"{DOCUMENTS}/documents.parquet",
        tokenizers=[manifest(model) for model in keys.tokenizer_models(SETTINGS)],
        template=SETTINGS.text.template or [],
    output:
        shards=TOKEN_SHARDS,
        manifest=f"{TOKENS}/manifest.json",
    log:
        f"{TOKENS}/logs/tokenize_documents.log",
    benchmark:
        f"{TOKENS}/logs/tokenize_documents.tsv"
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=asked("tokenize_documents", "mem_mb"),
        runtime=asked("tokenize_documents", "runtime"),
    params:
        tokenizers=[
            f"--tokenizer={model}={manifest(model)}" for model in keys.tokenizer_models(SETTINGS)
        ],
        template=f"--template={SETTINGS.text.template}" if SETTINGS.text.template else [],
        tokens=SETTINGS.text.tokens,
        shard_tokens=SETTINGS.text.shard_tokens,
        context=SETTINGS.text.context_length,
        facts=facts("dataset.tokenize_documents"),
    shell:
        "logged {log:q} python -m workflow_scripts.dataset.tokenize_documents"
        " --documents {input.documents:q} {params.tokenizers:q} {params.template:q}"
        " --tokens {params.tokens} --shard-tokens {params.shard_tokens}"
        " --context-length {params.context} --facts {params.facts:q}"
        " --output {output.shards:q} --manifest {output.manifest:q}"
