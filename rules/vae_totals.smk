# Means of what autoencoders lose, with intervals, by resolution and frames.
rule total_vae:
    input:
        rows=expand(
            rules.measure_vae.output.manifest, autoencoder=settings.autoencoders
        ),
        clips=rules.merge_clips.output.manifest,
    output:
        totals=f"{RESULTS}/vae.json",
    log:
        f"{LOGS}/vae.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        config=declare.reads(stage_inputs.VaeTotalsStage),
        code=declare.code("vae_totals"),
        env=declare.env("numpy", "scipy"),
    shell:
        "stage vae_totals --rows {input.rows:q} --clips {input.clips:q} --out {output.totals:q} 2>&1 | tee -i {log:q}"


rule vae:
    input:
        rules.total_vae.output.totals,
