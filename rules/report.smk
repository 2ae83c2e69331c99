# One self-contained page.


rule render_report:
    input:
        runs=rules.collect_runs.output.runs,
        regions=rules.collect_runs.output.regions,
        checks=rules.check_runs.output.checks,
        validation=rules.validate_holdout.output.validation,
        predictions=prediction_files(),
        fits=fit_files(),
        calibration=rules.calibrate_node.output.calibration,
        idle=rules.measure_idle.output.idle,
    output:
        page=report(f"{RESULTS}/report.html", caption="../workflow/report/page.rst", category="Report"),
    log:
        f"{RESULTS}/logs/render_report.log",
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=canonical_json(SETTINGS["report"]),
        headline=ANALYSIS["headline"],
        code=code_digest("render_report"),
    shell:
        "{PYTHON} {SCRIPTS}/render_report.py --campaign {CAMPAIGN.name} --runs {input.runs} --regions {input.regions} --checks {input.checks} --validation {input.validation} --predictions {input.predictions} --fits {input.fits} --calibration {input.calibration} --idle {input.idle} --runs-dir {RESULTS}/runs --headline {params.headline} --settings {params.settings:q} --out {output.page} > {log} 2>&1"
