# One arm = one objective on the same pairs and seeds, or a chain of such trainings. Checkpoints live in the store; the rule declares the outcome.
rule train_arm:
    input:
        unpack(model_files.trained_on),
    output:
        model=f"{RESULTS}/{{of}}train/{{arm}}/seed{{seed}}/model.json",
    log:
        f"{LOGS}/{{of}}train/{{arm}}/seed{{seed}}.log",
    benchmark:
        f"{LOGS}/benchmarks/{{of}}train/{{arm}}/seed{{seed}}.tsv"
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
        runtime=2880,
    params:
        config=declare.reads(
            stage_inputs.TrainStage,
            lambda wildcards: (wildcards.arm, int(wildcards.seed)),
        ),
        code=lambda wildcards: declare.training_code(
            settings.train.links[wildcards.arm].step.objective
        ),
        env=declare.env("torch", "diffusers", "peft"),
        damage=lambda wildcards: damage.digest(
            f"{RESULTS}/{wildcards.of}train/{wildcards.arm}/seed{wildcards.seed}/model.json"
        ),
        launch=lambda wildcards, resources, threads: declare.launch(
            f"train.arms.{wildcards.arm}",
            comment_of("train_arm", wildcards, Path.cwd()),
            events_of(
                f"{LOGS}/{wildcards.of}train/{wildcards.arm}/seed{wildcards.seed}.log"
            ),
            resources,
            threads,
        ),
    shell:
        "stage train --name {wildcards.of}{wildcards.arm}/seed{wildcards.seed}"
        " --model {input.model:q} --latents {input.latents:q} --code {params.code}-{params.env}"
        " --launch {params.launch:q} --out {output.model:q} 2>&1 | tee -i {log:q}"


rule train:
    input:
        expand(rules.train_arm.output.model, of=BASES, arm=LINKS, seed=SEEDS),
