# What a measurement needs: the expanded grid, the data sets, and what the node can do.
# The row with the most devices on a node: calibration has to see as many.
LARGEST = max((run.row for run in ALL_RUNS), key=lambda row: row["gpus_per_node"])


localrules:
    write_grid,
    write_labels,
    write_config,


rule write_grid:
    output:
        grid=f"{RESULTS}/grid.json",
    log:
        f"{RESULTS}/logs/write_grid.log",
    params:
        runs=provenance.digest_of(sorted(run.key for run in ALL_RUNS)),
    run:
        grid.write(ALL_RUNS, CAMPAIGN.name, output.grid)


# The labels that only the analysis reads are kept apart, so that train <-> holdout measures nothing again.
rule write_labels:
    output:
        labels=f"{RESULTS}/labels.json",
    log:
        f"{RESULTS}/logs/write_labels.log",
    params:
        labels=provenance.digest_of(
            sorted(run.run_id + canonical_json(run.labels) for run in ALL_RUNS if run.labels)
        ),
    run:
        grid.write_labels(ALL_RUNS, output.labels)


# What the report shows of the configuration: the part that its numbers depend on.
rule write_config:
    output:
        config=f"{RESULTS}/config.json",
    log:
        f"{RESULTS}/logs/write_config.log",
    params:
        shown=provenance.digest_of([canonical_json(CAMPAIGN.shown)]),
    run:
        write_json(output.config, CAMPAIGN.shown)


rule prepare_dataset:
    output:
        dataset=f"{RESULTS}/dataset/{{dataset}}.parquet",
        tokenizer=f"{RESULTS}/dataset/{{dataset}}.tokenizer.json",
    log:
        f"{RESULTS}/logs/prepare_dataset/{{dataset}}.log",
    resources:
        measuring=1,
        mem_mb=4000,
        runtime=30,
    params:
        dataset=lambda wildcards: DATASETS[wildcards.dataset]["dataset"],
        vocab_size=lambda wildcards: DATASETS[wildcards.dataset]["vocab_size"],
        seed=SETTINGS["dataset"]["seed"],
        # A checkpoint brings its own tokenizer.
        checkpoint=lambda wildcards: checkpoint_option(DATASETS[wildcards.dataset]),
        code=measuring_code("prepare_dataset"),
    shell:
        "python scripts/prepare_dataset.py --dataset {params.dataset} --vocab-size {params.vocab_size} --seed {params.seed} {params.checkpoint} --out {output.dataset} --tokenizer {output.tokenizer} > {log} 2>&1"


rule calibrate_node:
    output:
        calibration=f"{RESULTS}/node/calibration.json",
        table=f"{RESULTS}/node/calibration.parquet",
    log:
        f"{RESULTS}/logs/calibrate_node.log",
    threads: cpus_per_task(LARGEST)
    resources:
        measuring=1,
        mem_mb=8000,
        runtime=30,
        gres=gres(LARGEST["gpus_per_node"]),
        slurm_extra=exclusive(),
    params:
        protocol=CAMPAIGN.protocol_key,
        code=code_digest("calibrate_node"),
    shell:
        unless_data(
            "python scripts/calibrate_node.py --protocol {params.protocol:q} --out {output.calibration} --table {output.table} > {log} 2>&1"
        )


rule measure_idle:
    output:
        idle=f"{RESULTS}/node/idle.json",
    log:
        f"{RESULTS}/logs/measure_idle.log",
    resources:
        measuring=1,
        mem_mb=2000,
        runtime=10,
        gres=gres(LARGEST["gpus_per_node"]),
        slurm_extra=exclusive(),
    params:
        protocol=CAMPAIGN.protocol_key,
        code=code_digest("measure_idle"),
    shell:
        unless_data(
            "python scripts/measure_idle.py --protocol {params.protocol:q} --out {output.idle} > {log} 2>&1"
        )
