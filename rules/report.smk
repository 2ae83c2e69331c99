# One self-contained page, and its parts as files.
TEMPLATES = ROOT / "workflow/jouleline/report/templates"


rule render_report:
    input:
        runs=rules.collect_runs.output.runs,
        regions=rules.collect_runs.output.regions,
        timings=rules.collect_runs.output.timings,
        checks=rules.check_runs.output.checks,
        validation=rules.validate_holdout.output.validation,
        predictions=prediction_files(),
        fits=fit_files(),
        splits=split_files(),
        config=rules.write_config.output.config,
        calibration=rules.collect_calibration.output.calibration,
        idle=rules.measure_idle.output.idle,
        rounds=round_files if FRUGAL else [],
        answers=rules.choose_configuration.output.answers if SETTINGS["choose"] else [],
        suggested=rules.suggest_runs.output.suggested if SUGGESTS else [],
    output:
        page=report(f"{RESULTS}/report.html", caption="../workflow/report/page.rst", category="Report"),
        # Every figure, every table, and the whole as JSON.
        parts=report(
            directory(f"{RESULTS}/report"),
            patterns=["figures/{figure}.svg", "tables/{table}.csv", "{name}.json"],
            caption="../workflow/report/part.rst",
            category="Parts of the report",
        ),
    log:
        f"{RESULTS}/logs/render_report.log",
    resources:
        mem_mb=4000,
        runtime=15,
    params:
        campaign=CAMPAIGN.name,
        # The folder of the runs' records and raw samples.
        raw=f"{SETTINGS['data'] or RESULTS}/runs",
        # A function, because a title may have braces, which Snakemake would take for wildcards.
        settings=lambda wildcards: canonical_json(SETTINGS["report"]),
        planned=len(ALL_RUNS),
        code=code_digest("render_report"),
        # The template and its style are no modules, so the code digest does not include them.
        template=provenance.digest_of(
            path.read_text(encoding="utf-8") for path in sorted(TEMPLATES.iterdir())
        ),
    message:
        "Write the report"
    shell:
        "python scripts/render_report.py --campaign {params.campaign} --runs {input.runs} --regions {input.regions} --timings {input.timings} --checks {input.checks} --validation {input.validation} --predictions {input.predictions} --fits {input.fits} --splits {input.splits} --config {input.config} --calibration {input.calibration} --idle {input.idle} --answers {input.answers} --rounds {input.rounds} --suggested {input.suggested} --runs-dir {params.raw} --planned {params.planned} --settings {params.settings:q} --out {output.page} --parts {output.parts} > {log} 2>&1"
