"""Meaning: explanations, categories and detection scores of latents.

Reads contexts; leaves explanations.parquet, labels.parquet, scores.parquet, summary.json and
agreement.json. The lexical annotator always works; an LLM only where the config asks for it.
"""

AUTOINTERP = "<results>/autointerp/{fit}/seed{seed}"
LLM = SETTINGS.autointerp.llm if SETTINGS.autointerp.annotator == "llm" else None
PROMPTS = Path(workflow.basedir, "workflow_scripts", "autointerp", "prompts")


rule select_contexts:
    """Choose the contexts that annotators see, and those on which they are scored."""
    input:
        f"{LATENTS}/examples.parquet",
    output:
        contexts=f"{AUTOINTERP}/contexts.parquet",
        latents=f"{AUTOINTERP}/latents.parquet",
    log:
        "<results>/logs/select_contexts/{fit}_seed{seed}.log",
    priority: CHAIN
    conda:
        "../envs/tables.yaml"
    resources:
        **SIZED,
    params:
        **step("autointerp.select_contexts"),
        limits=flags(SETTINGS.autointerp.contexts),
        seed=SETTINGS.seed,
    shell:
        "logged {log:q} python -m {params.step}"
        " --examples {input:q} {params.limits:q} --seed {params.seed}"
        " --contexts {output.contexts:q} --latents {output.latents:q}"


rule explain_lexical:
    """Name latents without an LLM: log-odds terms, a lexicon, held-out detection."""
    input:
        contexts=f"{AUTOINTERP}/contexts.parquet",
        latents=f"{AUTOINTERP}/latents.parquet",
        background=f"{LATENTS}/background.parquet",
        taxonomy=TAXONOMY,
    output:
        expand(f"{AUTOINTERP}/lexical/{{table}}.parquet", table=PURPOSES, allow_missing=True),
    log:
        "<results>/logs/explain_lexical/{fit}_seed{seed}.log",
    benchmark:
        "<results>/logs/explain_lexical/{fit}_seed{seed}.tsv"
    priority: CHAIN
    conda:
        "../envs/tables.yaml"
    resources:
        **SIZED,
    params:
        **step("autointerp.explain_lexical"),
        rule_=flags(SETTINGS.autointerp, "least_score", "least_margin", "gate_margin"),
        folder=folder_of(),
        seed=SETTINGS.seed,
    shell:
        "logged {log:q} python -m {params.step}"
        " --contexts {input.contexts:q} --latents {input.latents:q}"
        " --background {input.background:q} --taxonomy {input.taxonomy:q} {params.rule_:q}"
        " --seed {params.seed} --output {params.folder:q}"


if LLM:

    ANNOTATORS = as_json([{"name": n} | a.model_dump() for n, a in LLM.annotators.items()])
    PRICES = as_json(LLM.prices)

    rule build_requests:
        """Write the requests of one purpose and what they will cost; opens no socket."""
        input:
            contexts=f"{AUTOINTERP}/contexts.parquet",
            latents=f"{AUTOINTERP}/latents.parquet",
            taxonomy=TAXONOMY,
            explanations=PATHS.quoted_explanations,
            prompts=lambda wildcards: sorted(PROMPTS.glob(f"{wildcards.purpose}_*.md")),
        output:
            requests=f"{AUTOINTERP}/{{purpose}}/requests.jsonl",
            plan=f"{AUTOINTERP}/{{purpose}}/plan.json",
        log:
            "<results>/logs/build_requests/{fit}_seed{seed}_{purpose}.log",
        conda:
            "../envs/llm.yaml"
        resources:
            **SIZED,
        params:
            **step("autointerp.build_requests"),
            explanations=lambda wildcards, input: (
                [f"--explanations={input.explanations}"] if input.explanations else []
            ),
            annotators=ANNOTATORS,
            prices=PRICES,
            sizes=flags(
                LLM, "replicates", "items_per_prompt", "held_out", "null", "fuzz", "canaries"
            ),
            seed=SETTINGS.seed,
        shell:
            "logged {log:q} python -m {params.step}"
            " --purpose {wildcards.purpose} --contexts {input.contexts:q}"
            " --latents {input.latents:q} --taxonomy {input.taxonomy:q} {params.explanations:q}"
            " --annotators {params.annotators:q} --prices {params.prices:q} {params.sizes:q}"
            " --code {params.code} --seed {params.seed} --requests {output.requests:q} --plan {output.plan:q}"

    rule call_llm:
        """Send what the cache lacks; the only rule that opens a socket."""
        input:
            f"{AUTOINTERP}/{{purpose}}/requests.jsonl",
        output:
            responses=f"{AUTOINTERP}/{{purpose}}/responses.jsonl",
            ledger=f"{AUTOINTERP}/{{purpose}}/ledger.csv",
            manifest=f"{AUTOINTERP}/{{purpose}}/manifest.json",
        log:
            "<results>/logs/call_llm/{fit}_seed{seed}_{purpose}.log",
        localrule: True
        conda:
            "../envs/llm.yaml"
        resources:
            llm=1,
        params:
            **step("autointerp.call_llm"),
            endpoint=flags(LLM, "cache", "base_url", "key_env", "mode", "response_format"),
            limits=flags(
                LLM,
                "concurrency",
                "requests_per_minute",
                "attempts",
                "deadline",
                "max_requests",
                "max_tokens",
                "max_cost",
            ),
            prices=PRICES,
            # Not an output: it is shared by all purposes, fits and seeds.
            spend=f"{RESULTS}/autointerp/spend.jsonl",
        shell:
            "logged {log:q} python -m {params.step}"
            " --requests {input:q} {params.endpoint:q} {params.limits:q} --spend {params.spend:q}"
            " --prices {params.prices:q} --responses {output.responses:q}"
            " --ledger {output.ledger:q} --manifest {output.manifest:q}"

    rule parse_responses:
        """Turn answers into a table; a failed answer keeps its status and gets no label."""
        input:
            requests=lambda wildcards: f"{PATHS.purpose(wildcards)}/requests.jsonl",
            responses=lambda wildcards: f"{PATHS.purpose(wildcards)}/responses.jsonl",
            latents=f"{AUTOINTERP}/latents.parquet",
            taxonomy=TAXONOMY,
        output:
            table=f"{AUTOINTERP}/llm/{{table}}.parquet",
            summary=f"{AUTOINTERP}/llm/{{table}}.json",
        log:
            "<results>/logs/parse_responses/{fit}_seed{seed}_{table}.log",
        conda:
            "../envs/llm.yaml"
        resources:
            **SIZED,
        params:
            **step("autointerp.parse_responses"),
            purpose=lambda wildcards: PURPOSES[wildcards.table],
            annotators=ANNOTATORS,
            rule_=flags(LLM, "replicates", "max_failures")
            + flags(SETTINGS.autointerp, "gate_margin"),
        shell:
            "logged {log:q} python -m {params.step}"
            " --purpose {params.purpose} --requests {input.requests:q}"
            " --responses {input.responses:q} --latents {input.latents:q}"
            " --taxonomy {input.taxonomy:q} --annotators {params.annotators:q} {params.rule_:q}"
            " --output {output.table:q} --summary {output.summary:q}"


rule collect_annotations:
    """Put the annotators' tables together and compare an LLM with the lexical floor."""
    input:
        lexical=expand(
            f"{AUTOINTERP}/lexical/{{table}}.parquet", table=PURPOSES, allow_missing=True
        ),
        llm=expand(
            f"{AUTOINTERP}/llm/{{table}}.parquet",
            table=PURPOSES if LLM else [],
            allow_missing=True,
        ),
        told=[f"{AUTOINTERP}/llm/labels.json"] if LLM else [],
        ledgers=expand(
            f"{AUTOINTERP}/{{purpose}}/ledger.csv",
            purpose=PURPOSES.values() if LLM else [],
            allow_missing=True,
        ),
        taxonomy=TAXONOMY,
    output:
        tables=expand(f"{AUTOINTERP}/{{table}}.parquet", table=PURPOSES, allow_missing=True),
        summary=f"{AUTOINTERP}/summary.json",
        ledger=[f"{AUTOINTERP}/ledger.csv"] if LLM else [],
    log:
        "<results>/logs/collect_annotations/{fit}_seed{seed}.log",
    priority: CHAIN
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        **step("autointerp.collect_annotations"),
        lexical=lambda wildcards, input: str(Path(input.lexical[0]).parent),
        llm=lambda wildcards, input: [f"--llm={Path(file).parent}" for file in list(input.llm)[:1]],
        folder=folder_of("summary"),
        seed=SETTINGS.seed,
    shell:
        "logged {log:q} python -m {params.step}"
        " --lexical {params.lexical:q} {params.llm:q} --ledgers {input.ledgers:q}"
        " --taxonomy {input.taxonomy:q} --seed {params.seed} --output {params.folder:q}"


rule measure_agreement:
    """Measure how far annotators agree on categories."""
    input:
        f"{AUTOINTERP}/labels.parquet",
    output:
        f"{AUTOINTERP}/agreement.json",
    log:
        "<results>/logs/measure_agreement/{fit}_seed{seed}.log",
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        **step("autointerp.measure_agreement"),
        seed=SETTINGS.seed,
    shell:
        "logged {log:q} python -m {params.step}"
        " --labels {input:q} --seed {params.seed} --output {output:q}"


rule compare_truth:
    """Compare annotators' categories with the true ones of generated text."""
    input:
        labels=f"{AUTOINTERP}/labels.parquet",
        scores=f"{AUTOINTERP}/scores.parquet",
        latents=f"{LATENTS}/latents.parquet",
    output:
        truth=f"{AUTOINTERP}/truth.json",
        confusion=f"{AUTOINTERP}/confusion.csv",
    log:
        "<results>/logs/compare_truth/{fit}_seed{seed}.log",
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        **step("autointerp.compare_truth"),
    shell:
        "logged {log:q} python -m {params.step}"
        " --labels {input.labels:q} --scores {input.scores:q} --latents {input.latents:q}"
        " --output {output.truth:q} --confusion {output.confusion:q}"
