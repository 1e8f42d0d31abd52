"""Figures: pictures with the tables behind them, and one self-contained page.

Reads latents, comparisons and training logs; leaves figures as PNG, PDF and CSV, provenance.json
and report/index.html. workflow_scripts/run/report_plan.py lists the figures of
the report and writes their captions.
"""

from workflow_scripts.comparison.settings import Labelling
from workflow_scripts.latents.settings import Region

PICTURES = report_plan.pictures(PATHS)
CAPTIONS = {picture["png"]: picture["caption"] for picture in PICTURES.values()}
LAYER_SWEEPS = comparisons.layer_sweeps(SETTINGS)
GAPS = [f"{RESULTS}/comparison/gaps.csv"] if comparisons.has_scores(SETTINGS) else []
WEIGHED = report_plan.weighed(PATHS)
REPORT_FITS = report_plan.report_fits(PATHS)
PAGE = Path(os.path.relpath(HOME), "workflow_scripts", "figures")
SAID = report_plan.said(PATHS)
PUBLISHED = [f"{RESULTS}/paper/published.{e}" for e in ("csv", "json")] if SETTINGS.paper else []


# What figures share, and the flags of those of a fit and of those of a comparison.
PLOT = {"caption": lambda wildcards, output: CAPTIONS.get(output.png, ""), "inputs": named_inputs}
MODELS = lambda wildcards: ["--models", *SETTINGS.fits[wildcards.fit].models]
LABELLING = flags(SETTINGS.comparison, Labelling)
COMPARISON = lambda wildcards: [f"--comparison={wildcards.comparison}", *LABELLING]


rule plot_nu_plane:
    """Plot ν^ε against ν^r with the region in which a latent is unique."""
    input:
        latents=f"{LATENTS}/latents.parquet",
        selection=f"{LATENTS}/selection.parquet",
    output:
        **figure("nu_plane_{fit}_seed{seed}", "Latents", "ν plane"),
    log:
        "<results>/logs/plot_nu_plane/{fit}_seed{seed}.log",
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        **PLOT,
        **step("figures.plot_nu_plane"),
        flags=lambda wildcards: [
            *MODELS(wildcards),
            *flags(SETTINGS.latents, Region),
        ],
    shell:
        "logged {log:q} python -m {params.step} {params.inputs:q}"
        " {params.flags:q} --png {output.png:q} --pdf {output.pdf:q} --table {output.table:q}"


use rule plot_nu_plane as plot_delta_norm with:
    """Plot the histogram of Δnorm, with the unique latents."""
    input:
        latents=f"{LATENTS}/latents.parquet",
        selection=f"{LATENTS}/selection.parquet",
        null=for_fit(PATHS.null_latents),
    output:
        **figure("delta_norm_{fit}_seed{seed}", "Latents", "decoder norms"),
    log:
        "<results>/logs/plot_delta_norm/{fit}_seed{seed}.log",
    localrule: True
    params:
        **step("figures.plot_delta_norm"),
        flags=MODELS,


use rule plot_nu_plane as plot_firing_rates with:
    """Plot how often unique and shared latents fire."""
    output:
        **figure("firing_rates_{fit}_seed{seed}", "Latents", "firing rates"),
    log:
        "<results>/logs/plot_firing_rates/{fit}_seed{seed}.log",
    localrule: True
    params:
        **step("figures.plot_firing_rates"),
        flags=MODELS,


use rule plot_nu_plane as plot_training_curves with:
    """Plot loss, FVE, L0 and dead share over the steps of a fit, a line per seed."""
    input:
        logs=lambda wildcards: PATHS.of_seeds("crosscoder", [wildcards.fit], "training.csv"),
    output:
        **figure("training_curves_{fit}", "Training", "training"),
    log:
        "<results>/logs/plot_training_curves/{fit}.log",
    localrule: True
    params:
        **step("figures.plot_training_curves"),
        flags=MODELS,


use rule plot_nu_plane as plot_seed_stability with:
    """Plot in how many other seeds latents come back."""
    input:
        stability="<results>/latents/{fit}/stability.parquet",
    output:
        **figure("seed_stability_{fit}", "Latents", "seeds"),
    log:
        "<results>/logs/plot_seed_stability/{fit}.log",
    localrule: True
    params:
        **step("figures.plot_seed_stability"),
        flags=MODELS,


use rule plot_nu_plane as plot_two_axes with:
    """Plot behaviour against representation, a point per label."""
    input:
        changes="<results>/comparison/changes.csv",
        answer="<results>/comparison/answer.json",
    output:
        **figure("two_axes_{comparison}", "Answer", "two axes"),
    log:
        "<results>/logs/plot_two_axes/{comparison}.log",
    localrule: True
    params:
        **step("figures.plot_two_axes"),
        flags=lambda wildcards: [f"--comparison={wildcards.comparison}"],


use rule plot_nu_plane as plot_witnesses with:
    """Plot what every witness says of each label's text."""
    input:
        witnesses="<results>/comparison/witnesses.csv",
        answer="<results>/comparison/answer.json",
        planted="<results>/models/planted.csv" if PLANTED_PAIRS else [],
    output:
        **figure("witnesses_{comparison}", "Answer", "witnesses"),
    log:
        "<results>/logs/plot_witnesses/{comparison}.log",
    localrule: True
    params:
        **step("figures.plot_witnesses"),
        flags=lambda wildcards: [f"--comparison={wildcards.comparison}"],


use rule plot_nu_plane as plot_direct_shares with:
    """Plot which share of a category's latents belongs to one model only."""
    input:
        categories="<results>/comparison/categories.csv",
    output:
        **figure("direct_shares_{comparison}", "Categories", "unique latents"),
    log:
        "<results>/logs/plot_direct_shares/{comparison}.log",
    localrule: True
    params:
        **step("figures.plot_direct_shares"),
        flags=COMPARISON,


use rule plot_direct_shares as plot_category_changes with:
    """Plot the percent change of each category's share of unique latents, with intervals."""
    output:
        **figure("category_changes_{comparison}", "Categories", "percent change"),
    log:
        "<results>/logs/plot_category_changes/{comparison}.log",
    localrule: True
    params:
        **step("figures.plot_category_changes"),
        flags=lambda wildcards: [*COMPARISON(wildcards), *flags(SETTINGS.comparison, "fdr")],


use rule plot_direct_shares as plot_category_shares with:
    """Plot each category's share of the unique latents of either model."""
    output:
        **figure("category_shares_{comparison}", "Categories", "shares"),
    log:
        "<results>/logs/plot_category_shares/{comparison}.log",
    localrule: True
    params:
        **step("figures.plot_category_shares"),


use rule plot_direct_shares as plot_layer_sweep with:
    """Plot the direct shares of two models that are compared at several layers."""
    output:
        **figure("layer_sweep_{pair}", "Categories", "by layer"),
    log:
        "<results>/logs/plot_layer_sweep/{pair}.log",
    localrule: True
    params:
        **step("figures.plot_layer_sweep"),
        flags=lambda wildcards: [
            f"--layers={in_order(LAYER_SWEEPS[wildcards.pair])}",
            *LABELLING,
        ],


use rule plot_nu_plane as plot_behaviour with:
    """Plot each label's gap in score against its gap in likelihood."""
    input:
        gaps="<results>/comparison/gaps.csv",
        answer="<results>/comparison/answer.json",
    output:
        **figure("behaviour_{comparison}", "Scores", "gaps in score"),
    log:
        "<results>/logs/plot_behaviour/{comparison}.log",
    localrule: True
    params:
        **step("figures.plot_behaviour"),
        flags=lambda wildcards: [f"--comparison={wildcards.comparison}"],


use rule plot_nu_plane as plot_cause with:
    """Plot what the unique latents cause."""
    input:
        cause="<results>/latents/cause/{comparison}.csv",
        ablation="<results>/comparison/ablation/{comparison}.csv" if TRUE_CATEGORIES else [],
    output:
        **figure("cause_{comparison}", "Cause", "what latents cause"),
    log:
        "<results>/logs/plot_cause/{comparison}.log",
    localrule: True
    params:
        **step("figures.plot_cause"),
        flags=[],


use rule plot_nu_plane as plot_difference with:
    """Plot how much of two models' difference baselines and crosscoder explain."""
    input:
        difference="<results>/latents/difference/{comparison}.csv",
    output:
        **figure("difference_{comparison}", "Cause", "difference explained"),
    log:
        "<results>/logs/plot_difference/{comparison}.log",
    localrule: True
    params:
        **step("figures.plot_difference"),
        flags=[],


use rule plot_nu_plane as plot_weights with:
    """Plot where two models' weights differ."""
    input:
        weights="<results>/models/weights/{comparison}.csv",
    output:
        **figure("weights_{comparison}", "Cause", "weights"),
    log:
        "<results>/logs/plot_weights/{comparison}.log",
    localrule: True
    params:
        **step("figures.plot_weights"),
        flags=[],


use rule plot_nu_plane as plot_recovery with:
    """Plot what every statistic measures beside what was planted."""
    input:
        recovery="<results>/comparison/recovery.csv",
    output:
        **figure("recovery", "Planted truth", "recovery"),
    log:
        "<results>/logs/plot_recovery/recovery.log",
    localrule: True
    params:
        **step("figures.plot_recovery"),
        flags=LABELLING,


rule record_run:
    """Write where the run's artifacts came from, and link the shared ones into its folder."""
    input:
        report_plan.recorded_files(PATHS),
    output:
        record="<results>/provenance.json",
        links=list(PATHS.links()),
    log:
        "<results>/logs/record_run.log",
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        **step("figures.record_run"),
        settings=as_json(SETTINGS.model_dump(mode="json")),
        steps=store_keys.steps(),
        links=as_json(PATHS.links()),
        models=as_json({name: PATHS.manifest(name) for name in SETTINGS.models}),
    shell:
        "logged {log:q} python -m {params.step}"
        " --settings {params.settings:q} --steps {params.steps:q} --links {params.links:q}"
        " --models {params.models:q} --output {output.record:q}"


rule build_report:
    """Put everything on one page that opens from disk."""
    input:
        answer="<results>/comparison/answer.json",
        changes="<results>/comparison/changes.csv",
        labels=PATHS.label_files,
        losses=PATHS.losses,
        documents=PATHS.documents,
        weighed=[files[name] for files in WEIGHED.values() for name in ("documents", "carriers")],
        recovery="<results>/comparison/recovery.csv",
        gaps=GAPS,
        sensitivity="<results>/comparison/sensitivity.csv",
        provenance="<results>/provenance.json",
        figures=[picture["png"] for picture in PICTURES.values()],
        fits=files_of(REPORT_FITS),
        ledgers=report_plan.ledgers(PATHS),
        said=list(SAID.values()),
        llm_labels=report_plan.llm_labels(PATHS),
        published=PUBLISHED,
        page=[PAGE / name for name in ("report.html.j2", "report.css", "report.js", "card.md.j2")],
    output:
        page=report(
            "<results>/report/index.html",
            caption="captions/page.rst",
            category="Answer",
            labels={"figure": "the whole report", "comparison": "all"},
        ),
        card="<results>/report/card.md",
        verdicts="<results>/report/verdicts.csv",
        latex="<results>/report/verdicts.tex",
    log:
        "<results>/logs/build_report.log",
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        **step("figures.build_report"),
        run=SETTINGS.run,
        figures=in_order(PICTURES),
        weighed=in_order(WEIGHED),
        gaps=[f"--gaps={file}" for file in GAPS],
        said=[f"--{name}={file}" for name, file in SAID.items()],
        published=["--published", *PUBLISHED] if SETTINGS.paper else [],
        fits=in_order(REPORT_FITS),
        ledgers=lambda wildcards, input: [f"--ledgers={file}" for file in input.ledgers],
        llm_labels=lambda wildcards, input: [f"--llm-labels={f}" for f in input.llm_labels],
    shell:
        "logged {log:q} python -m {params.step} --run {params.run}"
        " --answer {input.answer:q} --changes {input.changes:q} --labels {input.labels:q}"
        " --losses {input.losses:q} --documents {input.documents:q} --weighed {params.weighed:q}"
        " --recovery {input.recovery:q} {params.gaps:q}"
        " --sensitivity {input.sensitivity:q} --provenance {input.provenance:q}"
        " {params.published:q} {params.said:q} {params.ledgers:q} {params.llm_labels:q}"
        " --figures {params.figures:q} --fits {params.fits:q}"
        " --output {output.page:q} --card {output.card:q}"
        " --verdicts {output.verdicts:q} --latex {output.latex:q}"
