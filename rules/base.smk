# The base model: a checkpoint by name, or a small one trained here on footage that is not the user's.
if settings.base.pretrain is None:

    rule base_by_name:
        output:
            model=f"{RESULTS}/base/model.json",
        log:
            f"{LOGS}/base/model.log",
        benchmark:
            f"{LOGS}/benchmarks/base/model.tsv"
        localrule: True  # the one stage that asks a network, which nodes may not have
        conda:
            "../envs/regdpo.yaml"
        params:
            config=declare.reads(stage_inputs.BaseStage, lambda wildcards: (0,)),
            code=declare.code("base"),
            env=declare.env("huggingface-hub"),
            weights=lambda wildcards: found.weights(settings.base.model),
        shell:
            "stage base --out {output.model:q}" " 2>&1 | tee -i {log:q}"

else:

    rule pretraining_pairs:
        input:
            clips=rules.merge_clips.output.manifest,
            captions=rules.merge_captions.output.manifest,
        output:
            manifest=f"{RESULTS}/base/pairs.parquet",
        log:
            f"{LOGS}/base/pairs.log",
        localrule: True
        conda:
            "../envs/regdpo.yaml"
        params:
            config=declare.reads(stage_inputs.PairsStage),
            code=declare.code("pairs"),
        shell:
            "stage pairs --pretraining --clips {input.clips:q}"
            " --captions {input.captions:q} --out {output.manifest:q} 2>&1 | tee -i {log:q}"

    rule base_from_scratch:
        input:
            pairs=rules.pretraining_pairs.output.manifest,
        output:
            model=f"{RESULTS}/{{of}}base/untrained.json",
        log:
            f"{LOGS}/{{of}}base/untrained.log",
        benchmark:
            f"{LOGS}/benchmarks/{{of}}base/untrained.tsv"
        conda:
            "../envs/regdpo.yaml"
        threads: 1
        resources:
            mem_mb=declare.memory(4000),
            runtime=60,
        params:
            config=declare.reads(
                stage_inputs.BaseStage,
                lambda wildcards: (settings.base.folders[wildcards.of],),
            ),
            seed=lambda wildcards: settings.base.folders[wildcards.of],
            code=declare.code("base"),
            env=declare.env(*MODEL_PACKAGES),
            damage=lambda wildcards: damage.digest(
                f"{RESULTS}/{wildcards.of}base/untrained.json"
            ),
        shell:
            "stage base --seed {params.seed} --pairs {input.pairs:q}"
            " --out {output.model:q} 2>&1 | tee -i {log:q}"

    rule pretrain:
        input:
            model=rules.base_from_scratch.output.model,
            latents=f"{RESULTS}/{{of}}latents/pretrain.parquet",
        output:
            model=f"{RESULTS}/{{of}}base/model.json",
        log:
            f"{LOGS}/{{of}}base/pretrain.log",
        benchmark:
            f"{LOGS}/benchmarks/{{of}}base/pretrain.tsv"
        localrule: APART
        conda:
            "../envs/regdpo.yaml"
        threads: 1 if APART else CPUS
        resources:
            **declare.machines(),
            processes=settings.launch.processes,
            gpu=settings.launch.processes,
            nodes=settings.launch.nodes,
            mem_mb=declare.memory(4000, 600000),
            runtime=240,
        params:
            config=declare.reads(
                stage_inputs.TrainStage,
                lambda wildcards: ("pretrain", settings.base.folders[wildcards.of]),
            ),
            seed=lambda wildcards: settings.base.folders[wildcards.of],
            code=declare.training_code("pretrain"),
            env=declare.env("torch", "diffusers"),
            damage=lambda wildcards: damage.digest(
                f"{RESULTS}/{wildcards.of}base/model.json"
            ),
            launch=lambda wildcards, resources, threads: declare.launch(
                "base.pretrain",
                comment_of("pretrain", wildcards, Path.cwd()),
                events_of(f"{LOGS}/{wildcards.of}base/pretrain.log"),
                resources,
                threads,
            ),
        shell:
            "stage train --as-base --name {wildcards.of}pretrain/seed{params.seed}"
            " --model {input.model:q} --latents {input.latents:q} --code {params.code}-{params.env}"
            " --launch {params.launch:q} --out {output.model:q} 2>&1 | tee -i {log:q}"


# Other models that make negatives.
rule generator_by_name:
    output:
        model=f"{RESULTS}/generators/{{generator}}/model.json",
    log:
        f"{LOGS}/generators/{{generator}}.log",
    localrule: True  # it asks a network, which nodes may not have
    conda:
        "../envs/regdpo.yaml"
    params:
        config=declare.reads(
            stage_inputs.GeneratorStage, lambda wildcards: (wildcards.generator,)
        ),
        code=declare.code("base"),
        env=declare.env("huggingface-hub"),
        weights=lambda wildcards: found.weights(
            settings.negatives.named[wildcards.generator].model
        ),
    shell:
        "stage base --generator {wildcards.generator} --out {output.model:q} 2>&1 | tee -i {log:q}"
