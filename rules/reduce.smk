# From raw files to tables. Nothing here uses a device, so a better integrator costs no GPU hours.


# Many runs per job, so that ten thousand rows do not become ten thousand tiny jobs.
rule integrate_energy:
    input:
        runs=lambda wildcards: run_files(runs_of_shard(int(wildcards.shard))),
    output:
        energy=f"{RESULTS}/energy/shard-{{shard}}.parquet",
    log:
        f"{RESULTS}/logs/integrate_energy/{{shard}}.log",
    resources:
        # On one machine this waits for the running measurement, so as not to disturb it. So does prepare_dataset.
        measuring=1,
        # A thousand short runs take 150 MB. On Slurm all shards share a job, which asks for the sum.
        mem_mb=1000,
        runtime=lambda wildcards: 10 + len(SHARDS.get(int(wildcards.shard), RUNS)) // 100,
    params:
        code=code_digest("integrate_energy"),
    message:
        "Integrate the energy of the runs of shard {wildcards.shard}"
    shell:
        "python scripts/integrate_energy.py --runs {input.runs} --out {output.energy} > {log} 2>&1"


# Accounting forgets. So earlier answers stay in the file, and only missing ones are asked for.
rule ask_accounting:
    input:
        grid=rules.write_grid.output.grid,
        # These represent the runs, so Snakemake need not look at ten thousand files again.
        energy=energy_files,
    output:
        answers=update(f"{RESULTS}/accounting.json"),
    log:
        f"{RESULTS}/logs/ask_accounting.log",
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        code=code_digest("ask_accounting"),
    message:
        "Ask Slurm's accounting about the runs"
    shell:
        "python scripts/ask_accounting.py --grid {input.grid} --runs-dir $(dirname {input.grid})/runs --out {output.answers} > {log} 2>&1"


rule collect_runs:
    input:
        grid=rules.write_grid.output.grid,
        # With `data`, this file represents all of its files.
        energy=f"{SETTINGS['data']}/provenance.json" if SETTINGS["data"] else energy_files,
        slurm=[] if SETTINGS["data"] else rules.ask_accounting.output.answers,
    output:
        runs=f"{RESULTS}/tables/runs.parquet",
        regions=f"{RESULTS}/tables/regions.parquet",
        timings=f"{RESULTS}/tables/timings.parquet",
        dictionary=f"{RESULTS}/tables/data_dictionary.md",
    log:
        f"{RESULTS}/logs/collect_runs.log",
    resources:
        mem_mb=2000,
        runtime=10 + len(RUNS) // 500,
    params:
        code=code_digest("collect_runs"),
    message:
        "Gather the runs into tables"
    shell:
        unless_data(
            "python scripts/collect_runs.py --grid {input.grid} --runs-dir $(dirname {input.grid})/runs --energy {input.energy} --slurm {input.slurm} --runs {output.runs} --regions {output.regions} --timings {output.timings} --dictionary {output.dictionary} > {log} 2>&1"
        )


rule check_runs:
    input:
        runs=rules.collect_runs.output.runs,
        regions=rules.collect_runs.output.regions,
    output:
        checks=f"{RESULTS}/tables/checks.parquet",
    log:
        f"{RESULTS}/logs/check_runs.log",
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=code_digest("check_runs"),
        protocol=CAMPAIGN.protocol_key,
    message:
        "Check every run"
    shell:
        "python scripts/check_runs.py --runs {input.runs} --regions {input.regions} --protocol {params.protocol:q} --out {output.checks} > {log} 2>&1"
