# A campaign that chooses its own rows (the key `grid.frugal`). A round is a target; the rounds before it decide its runs.
# Only chosen rows become jobs. Without the key nothing here runs.
localrules:
    choose_rows,


checkpoint choose_rows:
    input:
        grid=rules.write_grid.output.grid,
        earlier=lambda wildcards: [frugal.path(RESULTS, n) for n in range(1, int(wildcards.round))],
        energy=lambda wildcards: energy_files(before=int(wildcards.round)),
        # The first round is chosen before anything is measured.
        calibration=lambda wildcards: (
            [] if wildcards.round == "1" else rules.collect_calibration.output.calibration
        ),
    output:
        # A choice is final, even if this file is made again.
        rows=update(f"{RESULTS}/rounds/{{round}}/rows.json"),
    log:
        f"{RESULTS}/logs/choose_rows/{{round}}.log",
    wildcard_constraints:
        round=r"[1-9]\d*",
    params:
        # A function, because the text may have braces, which Snakemake would take for wildcards.
        settings=lambda wildcards: canonical_json(
            {
                "frugal": FRUGAL,
                "plan": SETTINGS["plan"],
                "protocol": PROTOCOL,
                "asks": SETTINGS["choose"] if frugal.for_asks(FRUGAL) else [],
            }
        ),
        code=code_digest("choose_rows"),
    message:
        "Choose the rows of round {wildcards.round}"
    shell:
        "python scripts/choose_rows.py --grid {input.grid} --earlier {input.earlier} --energy {input.energy} --calibration {input.calibration} --settings {params.settings:q} --out {output.rows} > {log} 2>&1"
