"""Show me: figures with the tables behind them, and one self-contained page.

Reads latents, comparisons and training logs; leaves figures as PNG, PDF and CSV, provenance.json
and report/index.html.
"""

FIGURES = "<results>/figures"
CAPTION = "captions/figure.rst"  # what `snakemake --report` shows of a figure
PAGE = Path(os.path.relpath(workflow.basedir), "workflow_scripts", "figures")
PUBLISHED = [f"{RESULTS}/paper/published.{e}" for e in ("csv", "json")] if SETTINGS.paper else []


rule plot_nu_plane:
    """Plot ν^ε against ν^r with the region in which a latent is unique."""
    input:
        latents=f"{LATENTS}/latents.parquet",
        selection=f"{LATENTS}/selection.parquet",
    output:
        png=report(
            f"{FIGURES}/nu_plane_{{fit}}_seed{{seed}}.png",
            caption=CAPTION,
            category="Latents",
            labels={"figure": "ν plane", "fit": "{fit}", "seed": "{seed}"},
        ),
        pdf=f"{FIGURES}/nu_plane_{{fit}}_seed{{seed}}.pdf",
        table=f"{FIGURES}/nu_plane_{{fit}}_seed{{seed}}.csv",
    log:
        "<results>/logs/plot_nu_plane/{fit}_seed{seed}.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("figures.plot_nu_plane"),
        caption=caption,
        models=lambda wildcards: SETTINGS.fits[wildcards.fit].models,
        rule_=flags(SETTINGS.latents, "nu_r", "nu_e", "nu_lower"),
    shell:
        "logged {log:q} python -m workflow_scripts.figures.plot_nu_plane"
        " --latents {input.latents:q} --selection {input.selection:q}"
        " --models {params.models:q} {params.rule_:q}"
        " --png {output.png:q} --pdf {output.pdf:q} --table {output.table:q}"


rule plot_delta_norm:
    """Plot the histogram of Δnorm, with the unique latents."""
    input:
        latents=f"{LATENTS}/latents.parquet",
        selection=f"{LATENTS}/selection.parquet",
        null=lambda wildcards: null_latents(wildcards.fit),
    output:
        png=report(
            f"{FIGURES}/delta_norm_{{fit}}_seed{{seed}}.png",
            caption=CAPTION,
            category="Latents",
            labels={"figure": "decoder norms", "fit": "{fit}", "seed": "{seed}"},
        ),
        pdf=f"{FIGURES}/delta_norm_{{fit}}_seed{{seed}}.pdf",
        table=f"{FIGURES}/delta_norm_{{fit}}_seed{{seed}}.csv",
    log:
        "<results>/logs/plot_delta_norm/{fit}_seed{seed}.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("figures.plot_delta_norm"),
        caption=caption,
        null=lambda wildcards: [f"--null={file}" for file in null_latents(wildcards.fit)],
        models=lambda wildcards: SETTINGS.fits[wildcards.fit].models,
    shell:
        "logged {log:q} python -m workflow_scripts.figures.plot_delta_norm"
        " --latents {input.latents:q} --selection {input.selection:q}"
        " --models {params.models:q} {params.null:q}"
        " --png {output.png:q} --pdf {output.pdf:q} --table {output.table:q}"


rule plot_firing_rates:
    """Plot how often unique and shared latents fire."""
    input:
        latents=f"{LATENTS}/latents.parquet",
        selection=f"{LATENTS}/selection.parquet",
    output:
        png=report(
            f"{FIGURES}/firing_rates_{{fit}}_seed{{seed}}.png",
            caption=CAPTION,
            category="Latents",
            labels={"figure": "firing rates", "fit": "{fit}", "seed": "{seed}"},
        ),
        pdf=f"{FIGURES}/firing_rates_{{fit}}_seed{{seed}}.pdf",
        table=f"{FIGURES}/firing_rates_{{fit}}_seed{{seed}}.csv",
    log:
        "<results>/logs/plot_firing_rates/{fit}_seed{seed}.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("figures.plot_firing_rates"),
        caption=caption,
        models=lambda wildcards: SETTINGS.fits[wildcards.fit].models,
    shell:
        "logged {log:q} python -m workflow_scripts.figures.plot_firing_rates"
        " --latents {input.latents:q} --selection {input.selection:q}"
        " --models {params.models:q}"
        " --png {output.png:q} --pdf {output.pdf:q} --table {output.table:q}"


rule plot_training_curves:
    """Plot loss, FVE, L0 and dead share over the steps of a fit, a line per seed."""
    input:
        lambda wildcards: [
            f"{RESULTS}/crosscoder/{at}/training.csv" for at in fits_and_seeds([wildcards.fit])
        ],
    output:
        png=report(
            f"{FIGURES}/training_curves_{{fit}}.png",
            caption=CAPTION,
            category="Training",
            labels={"figure": "training", "fit": "{fit}"},
        ),
        pdf=f"{FIGURES}/training_curves_{{fit}}.pdf",
        table=f"{FIGURES}/training_curves_{{fit}}.csv",
    log:
        "<results>/logs/plot_training_curves/{fit}.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("figures.plot_training_curves"),
        caption=caption,
        models=lambda wildcards: SETTINGS.fits[wildcards.fit].models,
    shell:
        "logged {log:q} python -m workflow_scripts.figures.plot_training_curves"
        " --logs {input:q} --models {params.models:q}"
        " --png {output.png:q} --pdf {output.pdf:q} --table {output.table:q}"


rule plot_category_changes:
    """Plot the percent change of each category's share of unique latents, with intervals."""
    input:
        "<results>/comparison/categories.csv",
    output:
        png=report(
            f"{FIGURES}/category_changes_{{comparison}}.png",
            caption=CAPTION,
            category="Categories",
            labels={"figure": "percent change", "comparison": "{comparison}"},
        ),
        pdf=f"{FIGURES}/category_changes_{{comparison}}.pdf",
        table=f"{FIGURES}/category_changes_{{comparison}}.csv",
    log:
        "<results>/logs/plot_category_changes/{comparison}.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("figures.plot_category_changes"),
        caption=caption,
        rule_=flags(SETTINGS.comparison, "labeller", "fdr"),
    shell:
        "logged {log:q} python -m workflow_scripts.figures.plot_category_changes"
        " --categories {input:q} --comparison {wildcards.comparison} {params.rule_:q}"
        " --png {output.png:q} --pdf {output.pdf:q} --table {output.table:q}"


rule plot_direct_shares:
    """Plot which share of a category's latents belongs to one model only."""
    input:
        "<results>/comparison/categories.csv",
    output:
        png=report(
            f"{FIGURES}/direct_shares_{{comparison}}.png",
            caption=CAPTION,
            category="Answer",
            labels={"figure": "what changed", "comparison": "{comparison}"},
        ),
        pdf=f"{FIGURES}/direct_shares_{{comparison}}.pdf",
        table=f"{FIGURES}/direct_shares_{{comparison}}.csv",
    log:
        "<results>/logs/plot_direct_shares/{comparison}.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("figures.plot_direct_shares"),
        caption=caption,
        rule_=flags(SETTINGS.comparison, "labeller", "fdr"),
    shell:
        "logged {log:q} python -m workflow_scripts.figures.plot_direct_shares"
        " --categories {input:q} --comparison {wildcards.comparison} {params.rule_:q}"
        " --png {output.png:q} --pdf {output.pdf:q} --table {output.table:q}"


rule plot_layer_sweep:
    """Plot the direct shares of two models that are compared at several layers."""
    input:
        "<results>/comparison/categories.csv",
    output:
        png=report(
            f"{FIGURES}/layer_sweep_{{pair}}.png",
            caption=CAPTION,
            category="Categories",
            labels={"figure": "by layer", "models": "{pair}"},
        ),
        pdf=f"{FIGURES}/layer_sweep_{{pair}}.pdf",
        table=f"{FIGURES}/layer_sweep_{{pair}}.csv",
    log:
        "<results>/logs/plot_layer_sweep/{pair}.log",
    wildcard_constraints:
        pair="[a-z0-9_]+",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("figures.plot_layer_sweep"),
        caption=caption,
        layers=lambda wildcards: [
            f"--layer={name}={layer}" for name, layer in sweeps()[wildcards.pair].items()
        ],
        rule_=flags(SETTINGS.comparison, "labeller", "fdr"),
    shell:
        "logged {log:q} python -m workflow_scripts.figures.plot_layer_sweep"
        " --categories {input:q} {params.layers:q} {params.rule_:q}"
        " --png {output.png:q} --pdf {output.pdf:q} --table {output.table:q}"


rule plot_category_shares:
    """Plot each category's share of the unique latents of either model."""
    input:
        "<results>/comparison/categories.csv",
    output:
        png=report(
            f"{FIGURES}/category_shares_{{comparison}}.png",
            caption=CAPTION,
            category="Categories",
            labels={"figure": "shares", "comparison": "{comparison}"},
        ),
        pdf=f"{FIGURES}/category_shares_{{comparison}}.pdf",
        table=f"{FIGURES}/category_shares_{{comparison}}.csv",
    log:
        "<results>/logs/plot_category_shares/{comparison}.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("figures.plot_category_shares"),
        caption=caption,
        rule_=flags(SETTINGS.comparison, "labeller", "fdr"),
    shell:
        "logged {log:q} python -m workflow_scripts.figures.plot_category_shares"
        " --categories {input:q} --comparison {wildcards.comparison} {params.rule_:q}"
        " --png {output.png:q} --pdf {output.pdf:q} --table {output.table:q}"


rule plot_behaviour:
    """Plot each category's gap in score against the shift of its latents."""
    input:
        "<results>/comparison/gaps.csv",
    output:
        png=report(
            f"{FIGURES}/behaviour_{{comparison}}.png",
            caption=CAPTION,
            category="Scores",
            labels={"figure": "gaps in score", "comparison": "{comparison}"},
        ),
        pdf=f"{FIGURES}/behaviour_{{comparison}}.pdf",
        table=f"{FIGURES}/behaviour_{{comparison}}.csv",
    log:
        "<results>/logs/plot_behaviour/{comparison}.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("figures.plot_behaviour"),
        caption=caption,
        rule_=flags(SETTINGS.comparison, "labeller"),
    shell:
        "logged {log:q} python -m workflow_scripts.figures.plot_behaviour"
        " --gaps {input:q} --comparison {wildcards.comparison} {params.rule_:q}"
        " --png {output.png:q} --pdf {output.pdf:q} --table {output.table:q}"


rule plot_seed_stability:
    """Plot in how many other seeds latents come back."""
    input:
        "<results>/latents/{fit}/stability.parquet",
    output:
        png=report(
            f"{FIGURES}/seed_stability_{{fit}}.png",
            caption=CAPTION,
            category="Latents",
            labels={"figure": "seeds", "fit": "{fit}"},
        ),
        pdf=f"{FIGURES}/seed_stability_{{fit}}.pdf",
        table=f"{FIGURES}/seed_stability_{{fit}}.csv",
    log:
        "<results>/logs/plot_seed_stability/{fit}.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("figures.plot_seed_stability"),
        caption=caption,
        models=lambda wildcards: SETTINGS.fits[wildcards.fit].models,
    shell:
        "logged {log:q} python -m workflow_scripts.figures.plot_seed_stability"
        " --stability {input:q} --models {params.models:q}"
        " --png {output.png:q} --pdf {output.pdf:q} --table {output.table:q}"


rule plot_cause:
    """Plot what the unique latents cause."""
    input:
        cause="<results>/latents/cause/{comparison}.csv",
        ablation="<results>/comparison/ablation/{comparison}.csv" if KNOWN_TEXT else [],
    output:
        png=report(
            f"{FIGURES}/cause_{{comparison}}.png",
            caption=CAPTION,
            category="Cause",
            labels={"figure": "what latents cause", "comparison": "{comparison}"},
        ),
        pdf=f"{FIGURES}/cause_{{comparison}}.pdf",
        table=f"{FIGURES}/cause_{{comparison}}.csv",
    log:
        "<results>/logs/plot_cause/{comparison}.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("figures.plot_cause"),
        caption=caption,
        ablation=lambda wildcards, input: [f"--ablation={input.ablation}"] if KNOWN_TEXT else [],
    shell:
        "logged {log:q} python -m workflow_scripts.figures.plot_cause"
        " --cause {input.cause:q} {params.ablation:q}"
        " --png {output.png:q} --pdf {output.pdf:q} --table {output.table:q}"


rule plot_difference:
    """Plot how much of two models' difference baselines and crosscoder explain."""
    input:
        "<results>/latents/difference/{comparison}.csv",
    output:
        png=report(
            f"{FIGURES}/difference_{{comparison}}.png",
            caption=CAPTION,
            category="Cause",
            labels={"figure": "difference explained", "comparison": "{comparison}"},
        ),
        pdf=f"{FIGURES}/difference_{{comparison}}.pdf",
        table=f"{FIGURES}/difference_{{comparison}}.csv",
    log:
        "<results>/logs/plot_difference/{comparison}.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("figures.plot_difference"),
        caption=caption,
    shell:
        "logged {log:q} python -m workflow_scripts.figures.plot_difference"
        " --difference {input:q}"
        " --png {output.png:q} --pdf {output.pdf:q} --table {output.table:q}"


rule plot_recovery:
    """Plot what every statistic measures beside what was planted."""
    input:
        "<results>/comparison/recovery.csv",
    output:
        png=report(
            f"{FIGURES}/recovery.png",
            caption=CAPTION,
            category="Planted truth",
            labels={"figure": "recovery"},
        ),
        pdf=f"{FIGURES}/recovery.pdf",
        table=f"{FIGURES}/recovery.csv",
    log:
        "<results>/logs/plot_recovery/recovery.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("figures.plot_recovery"),
        caption=caption,
        rule_=flags(SETTINGS.comparison, "labeller"),
    shell:
        "logged {log:q} python -m workflow_scripts.figures.plot_recovery"
        " --recovery {input:q} {params.rule_:q}"
        " --png {output.png:q} --pdf {output.pdf:q} --table {output.table:q}"


rule record_run:
    """Write where the run's artifacts came from, and link the shared ones into its folder."""
    input:
        list(run_links().values()),
        "<results>/dataset/manifest.json",
        [figure["png"] for figure in report_figures()],
        [
            f"<results>/autointerp/{at}/{name}.json"
            for at in fits_and_seeds(COMPARED if ANNOTATED else [])
            for name in ("agreement", *(["truth"] if KNOWN_TEXT else []))
        ],
        [
            f"<results>/comparison/{name}"
            for name in ("answer.json", "sensitivity.csv", "weighted.csv")
        ],
    output:
        record="<results>/provenance.json",
        links=list(run_links()),
    log:
        "<results>/logs/record_run.log",
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("figures.record_run"),
        settings=as_json(SETTINGS.model_dump(mode="json")),
        steps=store_keys.steps(),
        links=as_json(run_links()),
        models=as_json({name: manifest(name) for name in SETTINGS.models}),
    shell:
        "logged {log:q} python -m workflow_scripts.figures.record_run"
        " --settings {params.settings:q} --steps {params.steps:q} --links {params.links:q}"
        " --models {params.models:q} --output {output.record:q}"


rule build_report:
    """Put everything on one page that opens from disk."""
    input:
        answer="<results>/comparison/answer.json",
        categories="<results>/comparison/categories.csv",
        recovery="<results>/comparison/recovery.csv",
        gaps="<results>/comparison/gaps.csv",
        sensitivity="<results>/comparison/sensitivity.csv",
        provenance="<results>/provenance.json",
        figures=[figure["png"] for figure in report_figures()],
        fits=list(report_files(COMPARED)),
        ledgers=[f"<results>/autointerp/{at}/ledger.csv" for at in fits_and_seeds(COMPARED) if LLM],
        published=PUBLISHED,
        page=[PAGE / name for name in ("report.html.j2", "report.css", "report.js")],
    output:
        report(
            "<results>/report/index.html",
            caption="captions/page.rst",
            category="Answer",
            labels={"figure": "the whole report", "comparison": "all"},
        ),
    log:
        "<results>/logs/build_report.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("figures.build_report"),
        run=SETTINGS.run,
        figures=as_json(report_figures()),
        published=["--published", *PUBLISHED] if SETTINGS.paper else [],
        fits=in_order(report_fits(COMPARED)),
    shell:
        "logged {log:q} python -m workflow_scripts.figures.build_report --run {params.run}"
        " --answer {input.answer:q} --categories {input.categories:q}"
        " --recovery {input.recovery:q} --gaps {input.gaps:q}"
        " --sensitivity {input.sensitivity:q} --provenance {input.provenance:q}"
        " {params.published:q} --ledgers {input.ledgers:q} --figures {params.figures:q} --fits {params.fits:q}"
        " --output {output:q}"
