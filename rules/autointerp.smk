"""Interpretation: explanations, categories and detection scores of latents.

Reads contexts; leaves explanations.parquet, labels.parquet, scores.parquet, summary.json and
agreement.json. The lexical annotator always works; an LLM only where the config asks for it. Then
it labels documents too.
"""

from workflow_scripts.autointerp.settings import (
    LABEL,
    Calls,
    CategoryRule,
    Connection,
    DocumentSample,
    Failures,
    GateMargin,
    PromptCounts,
    Replicates,
    SpendingCaps,
)

AUTOINTERP = "<results>/autointerp/{fit}/seed{seed}"
CONTEXTS = {
    "contexts": f"{AUTOINTERP}/contexts.parquet",
    "latents": f"{AUTOINTERP}/latents.parquet",
}
TABLES, LEXICAL_TABLES, LLM_TABLES = (
    [f"{folder}/{table}.parquet" for table in PURPOSES]
    for folder in (AUTOINTERP, f"{AUTOINTERP}/lexical", f"{AUTOINTERP}/llm")
)
LEDGERS = [f"{AUTOINTERP}/{purpose}/ledger.csv" for purpose in PURPOSES.values()]
LLM = SETTINGS.autointerp.llm if SETTINGS.autointerp.annotator == "llm" else None


rule select_contexts:
    """Choose the contexts that annotators see, and those on which they are scored."""
    input:
        f"{LATENTS}/examples.parquet",
    output:
        **CONTEXTS,
    log:
        "<results>/logs/select_contexts/{fit}_seed{seed}.log",
    priority: CHAIN
    conda:
        "../envs/tables.yaml"
    resources:
        **SIZED,
    params:
        **step("autointerp.select_contexts"),
        counts=flags(SETTINGS.autointerp.contexts),
        seed=SETTINGS.seed,
    shell:
        "logged {log:q} python -m {params.step}"
        " --examples {input:q} {params.counts:q} --seed {params.seed}"
        " --contexts {output.contexts:q} --latents {output.latents:q}"


rule explain_lexical:
    """Name latents without an LLM: log-odds terms, a lexicon, held-out detection."""
    input:
        **CONTEXTS,
        background=f"{LATENTS}/background.parquet",
        taxonomy=TAXONOMY,
    output:
        LEXICAL_TABLES,
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
        files=named_inputs,
        bounds=flags(SETTINGS.autointerp, CategoryRule, GateMargin),
        folder=folder_of(),
        seed=SETTINGS.seed,
    shell:
        "logged {log:q} python -m {params.step} {params.files:q} {params.bounds:q}"
        " --seed {params.seed} --output {params.folder:q}"


if LLM:

    ANNOTATORS = {name: settings.model_dump() for name, settings in LLM.annotators.items()}
    PROMPTS = Path(HOME, "workflow_scripts", "autointerp", "prompting", "prompts")

    rule build_requests:
        """Write the requests of one purpose and what they will cost; opens no socket."""
        input:
            **CONTEXTS,
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
            annotators=in_order(ANNOTATORS),
            counts=flags(LLM, PromptCounts),
            limits=as_json(LLM.output_limits),
            prices=as_json(LLM.prices),
            seed=SETTINGS.seed,
        shell:
            "logged {log:q} python -m {params.step} --purpose {wildcards.purpose}"
            " --contexts {input.contexts:q} --latents {input.latents:q}"
            " --taxonomy {input.taxonomy:q} {params.explanations:q}"
            " --annotators {params.annotators:q} {params.counts:q} --limits {params.limits:q}"
            " --prices {params.prices:q} --code {params.code} --seed {params.seed}"
            " --requests {output.requests:q} --plan {output.plan:q}"

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
            settings=flags(LLM, Connection, Calls, SpendingCaps, Failures),
            headers=as_json(LLM.headers),
            prices=as_json(LLM.prices),
            # Not an output: it is shared by all purposes, fits and seeds.
            spend=f"{RESULTS}/autointerp/spend.jsonl",
        shell:
            "logged {log:q} python -m {params.step} --requests {input:q} {params.settings:q}"
            " --headers {params.headers:q} --prices {params.prices:q} --spend {params.spend:q} --responses {output.responses:q}"
            " --ledger {output.ledger:q} --manifest {output.manifest:q}"

    rule parse_responses:
        """Turn answers into a table; a failed answer keeps its status and gets no label."""
        input:
            requests=lambda wildcards: f"{PATHS.purpose(wildcards)}/requests.jsonl",
            responses=lambda wildcards: f"{PATHS.purpose(wildcards)}/responses.jsonl",
            latents=CONTEXTS["latents"],
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
            files=named_inputs,
            annotators=list(LLM.annotators),
            bounds=flags(LLM, Replicates) + flags(SETTINGS.autointerp, GateMargin),
        shell:
            "logged {log:q} python -m {params.step} --purpose {params.purpose} {params.files:q}"
            " --annotators {params.annotators:q} {params.bounds:q}"
            " --output {output.table:q} --summary {output.summary:q}"


if comparisons.llm_labels_documents(SETTINGS):

    ASKED = PATHS.llm_labels

    rule build_label_requests:
        """Write the requests for labels of a sample of documents; opens no socket."""
        input:
            documents=PATHS.documents,
            tokens=PATHS.tokens,
            labels=PATHS.labels,
            taxonomy=TAXONOMY,
            prompts=sorted(PROMPTS.glob("label_*.md")),
        output:
            requests=f"{ASKED}/requests.jsonl",
            plan=f"{ASKED}/plan.json",
        log:
            "<results>/logs/build_label_requests.log",
        priority: CHAIN
        conda:
            "../envs/llm.yaml"
        resources:
            **SIZED,
        params:
            **step("autointerp.build_label_requests"),
            categories=as_json(LLM.documents.described),
            annotators=in_order(ANNOTATORS),
            counts=flags(LLM, Replicates) + flags(LLM.documents, DocumentSample),
            limit=LLM.output_limits[LABEL],
            prices=as_json(LLM.prices),
            seed=SETTINGS.seed,
        shell:
            "logged {log:q} python -m {params.step} --documents {input.documents:q}"
            " --tokens {input.tokens:q} --labels {input.labels:q} --taxonomy {input.taxonomy:q}"
            " --categories {params.categories:q} --annotators {params.annotators:q}"
            " {params.counts:q} --limit {params.limit} --prices {params.prices:q}"
            " --code {params.code} --seed {params.seed}"
            " --requests {output.requests:q} --plan {output.plan:q}"

    use rule call_llm as call_llm_about_documents with:
        input:
            f"{ASKED}/requests.jsonl",
        output:
            responses=f"{ASKED}/responses.jsonl",
            ledger=f"{ASKED}/ledger.csv",
            manifest=f"{ASKED}/manifest.json",
        log:
            "<results>/logs/call_llm_about_documents.log",
        priority: CHAIN
        localrule: True

    rule collect_document_labels:
        """Label the documents on which most annotators agree, and measure how far they do."""
        input:
            requests=f"{ASKED}/requests.jsonl",
            responses=f"{ASKED}/responses.jsonl",
        output:
            answers=f"{ASKED}/answers.parquet",
            labels=f"{ASKED}/labels.parquet",
            summary=f"{ASKED}/agreement.json",
        log:
            "<results>/logs/collect_document_labels.log",
        priority: CHAIN
        localrule: True
        conda:
            "../envs/llm.yaml"
        params:
            **step("autointerp.collect_document_labels"),
            files=named_inputs,
            seed=SETTINGS.seed,
        shell:
            "logged {log:q} python -m {params.step} {params.files:q}"
            " --seed {params.seed} --answers {output.answers:q} --labels {output.labels:q}"
            " --summary {output.summary:q}"


rule collect_annotations:
    """Join the annotators' tables and compare an LLM with the lexical annotator."""
    input:
        lexical=LEXICAL_TABLES,
        llm=[*LLM_TABLES, f"{AUTOINTERP}/llm/labels.json"] if LLM else [],
        ledgers=LEDGERS if LLM else [],
        taxonomy=TAXONOMY,
    output:
        tables=TABLES,
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
        lexical=folder_of_input("lexical"),
        llm=lambda wildcards, input: (
            [f"--llm={Path(input.llm[0]).parent}", "--ledgers", *input.ledgers] if LLM else []
        ),
        folder=folder_of("summary"),
        seed=SETTINGS.seed,
    shell:
        "logged {log:q} python -m {params.step} --lexical {params.lexical:q} {params.llm:q}"
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
        files=named_inputs,
    shell:
        "logged {log:q} python -m {params.step} {params.files:q}"
        " --output {output.truth:q} --confusion {output.confusion:q}"
