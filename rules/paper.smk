"""Published studies, compared with the run. Reads the comparison; needs a config with `paper`.

Leaves the table of published and measured quantities, for programs (CSV) and people (Markdown).
"""

PUBLISHED_FITS = report_plan.published_fits(PATHS)


rule compare_published:
    """Set published quantities beside the measured ones: OK, close, differs or NOT RUN."""
    input:
        categories="<results>/comparison/categories.csv",
        fits=files_of(PUBLISHED_FITS),
        published=lambda wildcards: paper_of(SETTINGS).published,
    output:
        table="<results>/paper/published.csv",
        text="<results>/paper/published.md",
        facts="<results>/paper/published.json",
    log:
        "<results>/logs/compare_published.log",
    localrule: True
    conda:
        "../envs/tables.yaml"
    params:
        **step("paper.compare_published"),
        run=SETTINGS.run,
        fits=in_order(PUBLISHED_FITS),
        choice=lambda wildcards: flags(paper_of(SETTINGS), "labeller"),
    shell:
        "logged {log:q} python -m {params.step} --run {params.run}"
        " --categories {input.categories:q} --published {input.published:q}"
        " --fits {params.fits:q} {params.choice:q}"
        " --table {output.table:q} --markdown {output.text:q} --facts {output.facts:q}"
