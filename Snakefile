# jouleline: from a grid of architectures to a report of the energy of their training, judged on held-out runs.
# This file is the table of contents. config/README.md explains every key of a campaign.
import os

from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


# The image of workflow/envs/Containerfile, for sites that run with --software-deployment-method apptainer.
container: os.environ.get("JOULELINE_CONTAINER", "jouleline.sif")


report: "workflow/report/workflow.rst"


include: "rules/common.smk"
include: "rules/guards.smk"
include: "rules/prepare.smk"
include: "rules/measure.smk"
include: "rules/reduce.smk"
include: "rules/frugal.smk"
include: "rules/model.smk"
include: "rules/report.smk"


# Before anything is submitted.
onstart:
    require_srun()
    require_times()
    require_budget()


localrules:
    all,
    doctor,
    plan,
    smoke,
    measurements,
    tables,
    model,
    validation,
    report,
    predict,
    choose,


rule all:
    default_target: True
    input:
        rules.render_report.output.page,


# Can the nodes do what the campaign asks? One short job for each kind of node. Fails if one cannot.
rule doctor:
    input:
        [f"{RESULTS}/doctor/N{nodes}x{devices}" for nodes, devices in KINDS.items()],
    log:
        f"{RESULTS}/logs/doctor.log",
    # The table is printed on the terminal, not into the log, because Snakemake shows the log of a failed rule too.
    # Findings are removed when they are shown, so a second try would find nothing.
    retries: 0
    shell:
        "python -m jouleline.commands.main doctor --show {input} 2> {log}"


# What the campaign would cost, before anything runs.
rule plan:
    input:
        rules.plan_campaign.output.table,


# The first row only: does this machine measure at all?
rule smoke:
    input:
        rules.write_grid.output,
        lambda wildcards: run_file((rounds(1)[1] if FRUGAL else RUNS)[0].run_id),


# Includes the list of the rows, from which `jouleline status` knows what is missing.
rule measurements:
    input:
        rules.write_grid.output,
        lambda wildcards: run_files(chosen_runs()),


rule tables:
    input:
        rules.collect_runs.output,
        rules.check_runs.output,


rule model:
    input:
        fit_files(),


rule validation:
    input:
        rules.validate_holdout.output,
        rules.enforce_gates.output,


rule report:
    input:
        rules.render_report.output.page,


# Time, energy, cost and CO2 of the configurations in the file `predict.rows`.
rule predict:
    input:
        rules.predict_rows.output,


# Which configuration to run next: the answers to the asks of the key `choose`.
rule choose:
    input:
        rules.choose_configuration.output,
