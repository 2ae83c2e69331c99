# From the runs table to held-out scores. Each (model, split) is a separate target, so a new one fits only itself.
import time


rule split_runs:
    input:
        runs=rules.collect_runs.output.runs,
        checks=rules.check_runs.output.checks,
        labels=lambda wildcards: rules.write_labels.output.labels if wildcards.split == "holdout" else [],
    output:
        split=f"{RESULTS}/splits/{{split}}.json",
    log:
        f"{RESULTS}/logs/split_runs/{{split}}.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        options=options_of("split"),
        code=code_digest("split_runs"),
    message:
        "Split the runs for {wildcards.split}"
    shell:
        "python scripts/split_runs.py --runs {input.runs} --checks {input.checks} --labels '{input.labels}' --split {wildcards.split} --options {params.options:q} --out {output.split} > {log} 2>&1"


rule fit_model:
    input:
        runs=rules.collect_runs.output.runs,
        split=rules.split_runs.output.split,
        calibration=rules.collect_calibration.output.calibration,
    output:
        fit=f"{RESULTS}/fit/{{model}}/{{split}}.json",
    log:
        f"{RESULTS}/logs/fit_model/{{model}}-{{split}}.log",
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        options=options_of("model"),
        code=code_digest("fit_model"),
    message:
        "Fit {wildcards.model} to the training runs of {wildcards.split}"
    shell:
        "python scripts/fit_model.py --runs {input.runs} --split {input.split} --model {wildcards.model} --calibration {input.calibration} --options {params.options:q} --out {output.fit} > {log} 2>&1"


rule predict_holdout:
    input:
        runs=rules.collect_runs.output.runs,
        split=rules.split_runs.output.split,
        fit=rules.fit_model.output.fit,
        calibration=rules.collect_calibration.output.calibration,
    output:
        predictions=f"{RESULTS}/predictions/{{model}}/{{split}}.parquet",
    log:
        f"{RESULTS}/logs/predict_holdout/{{model}}-{{split}}.log",
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=code_digest("predict_holdout"),
    message:
        "Predict the held-out runs of {wildcards.split} with {wildcards.model}"
    shell:
        "python scripts/predict_holdout.py --runs {input.runs} --split {input.split} --fit {input.fit} --calibration {input.calibration} --out {output.predictions} > {log} 2>&1"


rule validate_holdout:
    input:
        runs=rules.collect_runs.output.runs,
        checks=rules.check_runs.output.checks,
        fits=fit_files(ANALYSIS["splits"]),
        predictions=prediction_files(),
    output:
        validation=f"{RESULTS}/validation.json",
    log:
        f"{RESULTS}/logs/validate_holdout.log",
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        gates=lambda wildcards: canonical_json(ANALYSIS["gates"]),
        headline=ANALYSIS["headline"],
        code=code_digest("validate_holdout"),
    message:
        "Score every model on its held-out runs"
    shell:
        "python scripts/validate_holdout.py --runs {input.runs} --checks {input.checks} --predictions {input.predictions} --fits {input.fits} --gates {params.gates:q} --headline {params.headline} --out {output.validation} > {log} 2>&1"


# Separate from validate_holdout, so that a campaign that misses a gate still has a report.
rule enforce_gates:
    input:
        validation=rules.validate_holdout.output.validation,
    output:
        passed=touch(f"{RESULTS}/gates-passed"),
    log:
        f"{RESULTS}/logs/enforce_gates.log",
    message:
        "Hold the scores against the gates"
    shell:
        "python scripts/enforce_gates.py --validation {input.validation} > {log} 2>&1"


localrules:
    plan_campaign,
    enforce_gates,


# The plan uses the newest fitted model, else the device's data sheet.
rule plan_campaign:
    input:
        grid=rules.write_grid.output.grid,
        # The first round is chosen before anything is measured.
        first=frugal.path(RESULTS, 1) if FRUGAL else [],
    output:
        table=f"{RESULTS}/plan.csv",
    log:
        f"{RESULTS}/logs/plan_campaign.log",
    params:
        protocol=CAMPAIGN.protocol_key,
        code=MEASURING_CODE,
        plan=lambda wildcards: canonical_json(SETTINGS["plan"]),
        headline=ANALYSIS["headline"],
        frugal=lambda wildcards: canonical_json(FRUGAL or {}),
        # Always make a plan that is asked for. The measured runs and the newest model are no inputs.
        asked=lambda wildcards: time.time_ns(),
    message:
        "Work out what the campaign would cost"
    shell:
        "python scripts/plan_campaign.py --grid {input.grid} --protocol {params.protocol:q} --code-digest {params.code} --plan {params.plan:q} --headline {params.headline} --frugal {params.frugal:q} --out {output.table} 2>&1 | tee {log}"


rule predict_rows:
    input:
        rows=rows_to_predict,
        fit=f"{RESULTS}/fit/{ANALYSIS['headline']}/all.json",
    output:
        predictions=f"{RESULTS}/predict/predictions.csv",
    log:
        f"{RESULTS}/logs/predict_rows.log",
    params:
        plan=lambda wildcards: canonical_json(SETTINGS["plan"]),
        code=code_digest("predict_rows"),
    message:
        "Predict the configurations of {input.rows}"
    shell:
        "python scripts/predict_rows.py --model {input.fit} --rows {input.rows} --plan {params.plan:q} --out {output.predictions} > {log} 2>&1"


# The asks of the key `choose`, answered by the campaign's own model.
rule choose_configuration:
    input:
        fit=f"{RESULTS}/fit/{ANALYSIS['headline']}/all.json",
        runs=rules.collect_runs.output.runs,
    output:
        answers=f"{RESULTS}/choose/answers.json",
    log:
        f"{RESULTS}/logs/choose_configuration.log",
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        # A function, because an ask may have braces, which Snakemake would take for wildcards.
        asks=lambda wildcards: canonical_json({"asks": SETTINGS["choose"]}),
        plan=lambda wildcards: canonical_json(PRICES),
        code=code_digest("choose_configuration"),
    message:
        "Choose configurations for the asks of the campaign"
    shell:
        "python scripts/choose_configuration.py --model {input.fit} --runs {input.runs} --asks {params.asks:q} --plan {params.plan:q} --out {output.answers} > {log} 2>&1"


# The runs that would teach most about the asks, else about the rows of the grid that are not measured.
rule suggest_runs:
    input:
        runs=rules.collect_runs.output.runs,
        split=f"{RESULTS}/splits/all.json",
        grid=rules.write_grid.output.grid,
        calibration=rules.collect_calibration.output.calibration,
    output:
        suggested=f"{RESULTS}/choose/next.json",
    log:
        f"{RESULTS}/logs/suggest_runs.log",
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        # A function, because an ask may have braces, which Snakemake would take for wildcards.
        asks=lambda wildcards: canonical_json({"asks": SETTINGS["choose"]}),
        memory=f"--memory-gib {SETTINGS['plan']['memory_gib']}" if SETTINGS["plan"]["memory_gib"] else "",
        code=code_digest("suggest_runs"),
    message:
        "Look for the runs that would teach most"
    shell:
        "python scripts/suggest_runs.py --runs {input.runs} --split {input.split} --grid {input.grid} --calibration {input.calibration} --asks {params.asks:q} {params.memory} --out {output.suggested} > {log} 2>&1"
