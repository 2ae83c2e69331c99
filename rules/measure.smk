# One job per row and replicate. A node agent starts the sidecar and the ranks, and leaves three whole files.
# Do not use ancient() here: when the job that makes an ancient file runs again, Snakemake 9.27 overlooks other reasons.
# There are two rules, because Snakemake refuses `mpi` for a single task.
MEASURE = (
    "python scripts/measure_run.py --run-id {wildcards.run_id} --row {params.row:q} "
    "--protocol {params.protocol:q} --code-digest {params.code} --dataset {input.dataset} "
    "--out-dir $(dirname {output.run}) > {log} 2>&1"
)


rule measure_run:
    input:
        dataset=dataset_of,
    output:
        samples=f"{RESULTS}/runs/{{run_id}}/samples.parquet",
        markers=f"{RESULTS}/runs/{{run_id}}/markers.parquet",
        run=f"{RESULTS}/runs/{{run_id}}/run.json",
    log:
        f"{RESULTS}/logs/measure_run/{{run_id}}.log",
    wildcard_constraints:
        run_id=r"[^/]*-N1x\d+-[^/]*",
    priority: order_priority
    threads: of_run(lambda run: needs.cpus_per_task(run.row["gpus_per_node"], PROTOCOL))
    resources:
        measuring=1,
        gres=of_run(lambda run: gres(run.row["gpus_per_node"])),
        mem_mb=of_run(lambda run: needs.memory_mb(run.row, PROTOCOL)),
        runtime=needs.runtime_min(PROTOCOL),
        exclusive=EXCLUSIVE,
    params:
        row=row_key,
        protocol=CAMPAIGN.protocol_key,
        code=MEASURING_CODE,
    message:
        "Measure {wildcards.run_id}"
    shell:
        MEASURE


# srun starts one agent on each node. The executor removes SLURM_* from the job, so srun gets its options again.
rule measure_run_multinode:
    input:
        dataset=dataset_of,
    output:
        samples=f"{RESULTS}/runs/{{run_id}}/samples.parquet",
        markers=f"{RESULTS}/runs/{{run_id}}/markers.parquet",
        run=f"{RESULTS}/runs/{{run_id}}/run.json",
    log:
        f"{RESULTS}/logs/measure_run_multinode/{{run_id}}.log",
    wildcard_constraints:
        run_id=r"[^/]*-N(?!1x)\d+x\d+-[^/]*",
    priority: order_priority
    threads: of_run(lambda run: needs.cpus_per_task(run.row["gpus_per_node"], PROTOCOL))
    resources:
        measuring=1,
        mpi="srun",
        nodes=of_run(lambda run: run.row["nodes"]),
        # One task per node. The executor refuses `tasks_per_node=1`. Without `tasks_per_gpu=0` it takes `tasks` as
        # tasks per GPU.
        tasks=of_run(lambda run: run.row["nodes"]),
        tasks_per_gpu=0,
        gres=of_run(lambda run: gres(run.row["gpus_per_node"])),
        mem_mb=of_run(lambda run: needs.memory_mb(run.row, PROTOCOL)),
        runtime=needs.runtime_min(PROTOCOL),
        exclusive=EXCLUSIVE,
    params:
        row=row_key,
        protocol=CAMPAIGN.protocol_key,
        code=MEASURING_CODE,
    message:
        "Measure {wildcards.run_id}"
    shell:
        "{resources.mpi} -N {resources.nodes} --ntasks-per-node=1 -c {threads} --kill-on-bad-exit=1 "
        + MEASURE
