# What the autoencoders of the base and of generators with a model of their own lose of held-out clips. Off unless it is
# asked for, as a target or in the report.
rule measure_vae:
    input:
        model=model_files.autoencoder,
        clips=rules.merge_clips.output.manifest,
        places=rules.count_splits.output.places,
    output:
        manifest=f"{RESULTS}/vae/{{autoencoder}}.parquet",
    log:
        f"{LOGS}/vae/{{autoencoder}}.log",
    benchmark:
        f"{LOGS}/benchmarks/vae/{{autoencoder}}.tsv"
    conda:
        "../envs/regdpo.yaml"
    threads: 1
    resources:
        mem_mb=declare.memory(3000, 64000),
        runtime=240,
        gpu=1,
    params:
        config=declare.reads(stage_inputs.VaeStage),
        code=lambda wildcards: declare.autoencoder_code(wildcards.autoencoder),
        env=declare.env(*MODEL_PACKAGES, "scikit-image", "opencv-python-headless"),
        weights=[found.weights(path) for path in found.lpips],
    shell:
        "stage vae --name {wildcards.autoencoder} --model {input.model:q} --clips {input.clips:q}"
        " --places {input.places:q} --out {output.manifest:q} 2>&1 | tee -i {log:q}"
