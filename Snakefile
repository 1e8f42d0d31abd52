"""diffscope: what did fine-tuning change inside this model?

One name per stage: rules/<stage>.smk, workflow_scripts/<stage>/, results/<run>/<stage>/. Every
setting is described in config/README.md, every artifact in results/README.md.
"""

from snakemake.utils import min_version

min_version("9.27")


# A config of the user's replaces the quickstart's; it is not merged into it.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "rules/common.smk"


pathvars:
    results=f"results/{SETTINGS.run}",


include: "rules/dataset.smk"
include: "rules/models.smk"
include: "rules/activations.smk"
include: "rules/crosscoder.smk"
include: "rules/latents.smk"
include: "rules/interventions.smk"
include: "rules/autointerp.smk"
include: "rules/comparison.smk"
include: "rules/figures.smk"
include: "rules/paper.smk"


onstart:
    refuse_at_start()
    show_progress(workflow.dag.needrun_jobs())


onsuccess:
    print_answer()


rule all:
    """Everything up to the report of the run."""
    default_target: not ASKED_FOR_PAPER
    input:
        "<results>/report/index.html" if ANNOTATED else [],
        "<results>/provenance.json",


rule plan:
    """Print what the run will take, before anything is spent."""
    log:
        "<results>/logs/plan.log",
    localrule: True
    conda:
        "envs/tables.yaml"
    params:
        settings=as_json(SETTINGS.model_dump(mode="json")),
    shell:
        "logged {log:q} python -m workflow_scripts.run.plan_run --settings {params.settings:q}"


rule store_report:
    """List what in the store no config at hand refers to, and checkpoints of no fit."""
    log:
        "<results>/logs/store_report.log",
    localrule: True
    conda:
        "envs/tables.yaml"
    params:
        settings=as_json(SETTINGS.model_dump(mode="json")),
        removal="",
    shell:
        "logged {log:q} python -m workflow_scripts.tools.inspect_store"
        " --settings {params.settings:q} {params.removal}"


use rule store_report as clean_store with:
    """List the same, and remove the entries of the store where DELETE=yes is set."""
    log:
        "<results>/logs/clean_store.log",
    localrule: True
    params:
        removal="--remove" if os.environ.get("DELETE") == "yes" else "",


rule reproduce_paper:
    """The published study, set beside its publication; needs config/paper.yaml."""
    default_target: ASKED_FOR_PAPER
    input:
        lambda wildcards: paper_of(SETTINGS) and "<results>/report/index.html",
        "<results>/paper/published.md",
