# Checks before anything is submitted. The Snakefile's `onstart` calls them.
import shutil


def require_srun():
    """Refuse rows on several nodes on a machine without srun."""
    several = {"measure_run_multinode", "calibrate_links", "examine_nodes"}
    if workflow.touch or not workflow.local_exec or shutil.which("srun"):
        return
    found = sorted(
        {int(job.resources["nodes"]) for job in workflow.dag.needrun_jobs() if job.rule.name in several}
    )
    if found:
        counts = ", ".join(map(str, found))
        raise WorkflowError(
            f"rows on several nodes ({counts}) are started by srun, which this machine does not have; "
            "use --profile slurm on a cluster, or leave them out"
        )


def require_times():
    """Refuse to measure again if the only reason is that files were copied without their times."""
    if workflow.touch:
        return
    found = []
    for job in (job for job in workflow.dag.needrun_jobs() if job.rule.name in MEASURING):
        why = workflow.dag.reason(job)
        others = why.missing_output or why.incomplete_output or why.updated_input_run or why.forced
        changed = why.params_changed or why.code_changed or why.input_changed or why.software_stack_changed
        if why.updated_input and not (others or changed) and is_measured(job):
            found.append(job.wildcards.run_id)
    if found:
        raise WorkflowError(
            f"{len(found)} runs are measured with this row, protocol and code, but are older than their data set "
            f"({found[0]}, ...). Were the results copied without their times? `snakemake --touch --cores 1` accepts "
            "them; `--forcerun measure_run measure_run_multinode` measures them again"
        )


def require_budget():
    """Refuse the measurements of this call if they exceed the budget, or cannot fit in the memory of their devices."""
    settings = SETTINGS["plan"]
    budget = settings["max_gpu_hours"] is not None or settings["max_kwh"] is not None
    if workflow.touch or not (budget or settings["memory_gib"] or settings["device"]):
        return
    jobs = [job for job in workflow.dag.needrun_jobs() if job.rule.name in MEASURING]
    rows = [{"run_id": run_id, **BY_RUN_ID[run_id].row} for run_id in (job.wildcards.run_id for job in jobs)]
    if rows:
        from jouleline import plan  # loads numpy, so only if there is a limit

        try:
            plan.require_memory(plan.memory(rows, PROTOCOL, settings), settings)
            if budget:
                done = plan.finished(Path(RESULTS), [run.run_id for run in ALL_RUNS])
                _, total = plan.campaign(Path(RESULTS), rows, done, PROTOCOL, settings, ANALYSIS["headline"])
                plan.require_budget(total, settings)
        except UserError as error:
            raise WorkflowError(str(error)) from None


dry_run.refuse_too(require_budget)
