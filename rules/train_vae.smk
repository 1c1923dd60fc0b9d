# An autoencoder trained on the clips of the training split (vae.train). Checkpoints live in the store; the rule declares the outcome.
if settings.vae.train:

    rule train_vae:
        input:
            model=model_files.autoencoder_to_train,
            clips=rules.merge_clips.output.manifest,
            places=rules.count_splits.output.places,
        output:
            model=f"{RESULTS}/vae/{TRAINED}/model.json",
        log:
            f"{LOGS}/train_vae.log",
        benchmark:
            f"{LOGS}/benchmarks/train_vae.tsv"
        localrule: APART
        conda:
            "../envs/regdpo.yaml"
        threads: 1 if APART else CPUS
        resources:
            **declare.machines(),
            processes=settings.launch.processes,
            gpu=settings.launch.processes,
            nodes=settings.launch.nodes,
            mem_mb=declare.memory(4000, 100000),
            runtime=2880,
        params:
            config=declare.reads(stage_inputs.TrainVaeStage),
            code=declare.trained_autoencoder_code(),
            env=declare.env("torch", "diffusers", "av"),
            weights=[
                found.weights(path)
                for path in (found.lpips if settings.vae.train.loss.perceptual else [])
            ],
            damage=lambda wildcards: damage.digest(
                f"{RESULTS}/vae/{TRAINED}/model.json"
            ),
            launch=lambda wildcards, resources, threads: declare.launch_of_autoencoder(
                comment_of("train_vae", wildcards, Path.cwd()),
                events_of(f"{LOGS}/train_vae.log"),
                resources,
                threads,
            ),
        shell:
            "stage train_vae --model {input.model:q} --clips {input.clips:q} --places {input.places:q}"
            " --code {params.code}-{params.env} --launch {params.launch:q} --out {output.model:q} 2>&1 | tee -i {log:q}"
