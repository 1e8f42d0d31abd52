"""Does it agree with the publication? Reads the comparison; needs a config with `paper`."""


rule compare_published:
    """Set the published changes beside the measured ones: OK, differs or NOT RUN."""
    input:
        categories="<results>/comparison/categories.csv",
        published=lambda wildcards: paper().published,
    output:
        "<results>/paper/published.csv",
    log:
        "<results>/logs/compare_published.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=keys.step_digest("paper.compare_published"),
        choice=lambda wildcards: flags(paper(), "comparison", "labeller"),
    shell:
        "logged {log:q} python -m workflow_scripts.paper.compare_published"
        " --categories {input.categories:q} --published {input.published:q}"
        " {params.choice:q} --output {output:q}"
