"""Does it agree with the publication? Reads the comparison; needs a config with `paper`.

Leaves the table of published and measured quantities, for programs (CSV) and people (Markdown).
"""


rule compare_published:
    """Set published quantities beside the measured ones: OK, close, differs or NOT RUN."""
    input:
        categories="<results>/comparison/categories.csv",
        fits=[
            file
            for fit in measured_fits().values()
            for files in fit["seeds"].values()
            for file in files.values()
        ],
        published=lambda wildcards: paper().published,
    output:
        table="<results>/paper/published.csv",
        text="<results>/paper/published.md",
        facts="<results>/paper/published.json",
    log:
        "<results>/logs/compare_published.log",
    conda:
        "../envs/tables.yaml"
    params:
        code=store_keys.step_digest("paper.compare_published"),
        run=SETTINGS.run,
        fits=in_order(measured_fits()),
        choice=lambda wildcards: flags(paper(), "labeller"),
    shell:
        "logged {log:q} python -m workflow_scripts.paper.compare_published --run {params.run}"
        " --categories {input.categories:q} --published {input.published:q}"
        " --fits {params.fits:q} {params.choice:q}"
        " --table {output.table:q} --markdown {output.text:q} --facts {output.facts:q}"
