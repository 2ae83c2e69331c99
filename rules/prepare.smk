# What a measurement needs: the expanded grid, the data sets, and what the node can do.
# Number of nodes of a job: the most devices on a node of such a job. The doctor looks at each kind. Links are calibrated
# for each kind with several nodes.
KINDS = {
    nodes: max(run.row["gpus_per_node"] for run in ALL_RUNS if run.row["nodes"] == nodes)
    for nodes in sorted({run.row["nodes"] for run in ALL_RUNS})
}
# Calibration needs as many devices as any row uses on a node.
MOST_DEVICES = max(KINDS.values())
EXAMINE = (
    "python scripts/examine_node.py --device {params.device} --devices {wildcards.devices} --nodes {wildcards.nodes} "
    "{params.asked} --out {output.found} > {log} 2>&1"
)


localrules:
    write_grid,
    write_labels,
    write_config,
    collect_calibration,


rule write_grid:
    output:
        grid=f"{RESULTS}/grid.json",
    log:
        f"{RESULTS}/logs/write_grid.log",
    params:
        runs=provenance.digest_of(sorted(run.key for run in ALL_RUNS)),
    message:
        "Write down the rows of the campaign"
    run:
        grid.write(ALL_RUNS, CAMPAIGN.name, output.grid)


# Only the analysis reads labels. They have their own file, so that changing train <-> holdout measures nothing again.
rule write_labels:
    output:
        labels=f"{RESULTS}/labels.json",
    log:
        f"{RESULTS}/logs/write_labels.log",
    params:
        labels=provenance.digest_of(
            sorted(run.run_id + canonical_json(run.labels) for run in ALL_RUNS if run.labels)
        ),
    message:
        "Write down the rows' labels"
    run:
        grid.write_labels(ALL_RUNS, output.labels)


# The part of the configuration that the report shows: its numbers depend on it.
rule write_config:
    output:
        config=f"{RESULTS}/config.json",
    log:
        f"{RESULTS}/logs/write_config.log",
    params:
        shown=provenance.digest_of([canonical_json(CAMPAIGN.shown)]),
    message:
        "Write down the configuration"
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
        # A checkpoint has its own tokenizer.
        checkpoint=lambda wildcards: checkpoint_option(DATASETS[wildcards.dataset]),
        code=measuring_code("prepare_dataset"),
    message:
        "Prepare the data set {wildcards.dataset}"
    shell:
        "python scripts/prepare_dataset.py --dataset {params.dataset} --vocab-size {params.vocab_size} --seed {params.seed} {params.checkpoint} --out {output.dataset} --tokenizer {output.tokenizer} > {log} 2>&1"


# The target `doctor` shows the findings and removes them, so each call looks again.
rule examine_node:
    output:
        found=directory(f"{RESULTS}/doctor/N{{nodes}}x{{devices}}"),
    log:
        f"{RESULTS}/logs/examine_node/N{{nodes}}x{{devices}}.log",
    wildcard_constraints:
        nodes="1",
        devices=r"\d+",
    resources:
        mem_mb=2000,
        runtime=5,
        gres=lambda wildcards: gres(wildcards.devices),
        exclusive=EXCLUSIVE,
    params:
        device=PROTOCOL["device"],
        asked=asked_of_nodes(),
    message:
        "Examine a node for rows with {wildcards.devices} devices"
    shell:
        EXAMINE


# Each node of a job on several nodes. It sees the names of the others, as the agents of a row do.
rule examine_nodes:
    output:
        found=directory(f"{RESULTS}/doctor/N{{nodes}}x{{devices}}"),
    log:
        f"{RESULTS}/logs/examine_nodes/N{{nodes}}x{{devices}}.log",
    wildcard_constraints:
        nodes=r"(?!1x)\d+",
        devices=r"\d+",
    resources:
        mpi="srun",
        nodes=lambda wildcards: int(wildcards.nodes),
        tasks=lambda wildcards: int(wildcards.nodes),
        tasks_per_gpu=0,
        gres=lambda wildcards: gres(wildcards.devices),
        mem_mb=2000,
        runtime=5,
        exclusive=EXCLUSIVE,
    params:
        device=PROTOCOL["device"],
        asked=asked_of_nodes(),
    message:
        "Examine {wildcards.nodes} nodes for rows with {wildcards.devices} devices on each"
    shell:
        f"{{resources.mpi}} -N {{resources.nodes}} --ntasks-per-node=1 --kill-on-bad-exit=1 {EXAMINE}"


# srun starts one agent on each node, as for a row of several nodes.
rule calibrate_links:
    output:
        links=f"{RESULTS}/node/links-N{{nodes}}x{{devices}}.json",
    log:
        f"{RESULTS}/logs/calibrate_links/N{{nodes}}x{{devices}}.log",
    wildcard_constraints:
        nodes=r"\d+",
        devices=r"\d+",
    priority: BEFORE_ROWS
    threads: lambda wildcards: needs.cpus_per_task(int(wildcards.devices), PROTOCOL)
    resources:
        measuring=1,
        mpi="srun",
        nodes=lambda wildcards: int(wildcards.nodes),
        tasks=lambda wildcards: int(wildcards.nodes),
        tasks_per_gpu=0,
        gres=lambda wildcards: gres(wildcards.devices),
        mem_mb=lambda wildcards: needs.calibration_mb(int(wildcards.devices)),
        runtime=30,
        exclusive=EXCLUSIVE,
    params:
        protocol=CAMPAIGN.protocol_key,
        code=measuring_code("calibrate_links"),
    message:
        "Calibrate the links between {wildcards.nodes} nodes"
    shell:
        "{resources.mpi} -N {resources.nodes} --ntasks-per-node=1 -c {threads} --kill-on-bad-exit=1 "
        "python scripts/calibrate_links.py --protocol {params.protocol:q} --of-nodes {wildcards.nodes} "
        "--devices {wildcards.devices} --out {output.links} > {log} 2>&1"


# Calibrate again for more devices than before, but not for fewer.
CALIBRATED = max(MOST_DEVICES, calibrated_devices())


rule calibrate_node:
    output:
        node=f"{RESULTS}/node/device.json",
    log:
        f"{RESULTS}/logs/calibrate_node.log",
    priority: BEFORE_ROWS
    threads: needs.cpus_per_task(CALIBRATED, PROTOCOL)
    resources:
        measuring=1,
        mem_mb=needs.calibration_mb(CALIBRATED),
        runtime=30,
        gres=gres(CALIBRATED),
        exclusive=EXCLUSIVE,
    params:
        protocol=CAMPAIGN.protocol_key,
        code=code_digest("calibrate_node"),
        devices=CALIBRATED,
        # Shared by all campaigns: a calibration of the same devices and software is not measured again.
        known=Path(RESULTS).parent / "calibrations",
    message:
        "Calibrate the node's devices"
    shell:
        "python scripts/calibrate_node.py --protocol {params.protocol:q} --devices {params.devices} --known {params.known} --out {output.node} > {log} 2>&1"


# A separate step, so that a row on another number of nodes measures only its links, and no device again.
rule collect_calibration:
    input:
        node=[] if SETTINGS["data"] else rules.calibrate_node.output.node,
        links=(
            []
            if SETTINGS["data"]
            else [
                f"{RESULTS}/node/links-N{nodes}x{devices}.json"
                for nodes, devices in KINDS.items()
                if nodes > 1
            ]
        ),
    output:
        calibration=f"{RESULTS}/node/calibration.json",
        table=f"{RESULTS}/node/calibration.parquet",
    log:
        f"{RESULTS}/logs/collect_calibration.log",
    params:
        code=code_digest("collect_calibration"),
    message:
        "Gather the calibrations"
    shell:
        unless_data(
            "python scripts/collect_calibration.py --node {input.node} --links {input.links} --out {output.calibration} --table {output.table} > {log} 2>&1"
        )


rule measure_idle:
    output:
        idle=f"{RESULTS}/node/idle.json",
    log:
        f"{RESULTS}/logs/measure_idle.log",
    priority: BEFORE_ROWS
    resources:
        measuring=1,
        mem_mb=2000,
        runtime=10,
        gres=gres(MOST_DEVICES),
        exclusive=EXCLUSIVE,
    params:
        protocol=CAMPAIGN.protocol_key,
        code=code_digest("measure_idle"),
        devices=MOST_DEVICES,
    message:
        "Measure the idle power of the node"
    shell:
        unless_data(
            "python scripts/measure_idle.py --protocol {params.protocol:q} --devices {params.devices} --out {output.idle} > {log} 2>&1"
        )
