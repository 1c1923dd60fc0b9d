# The adapters of a training as part of its weights, where the next step of a chain starts from those.
rule merge_adapters:
    input:
        model=f"{RESULTS}/{{of}}train/{{arm}}/seed{{seed}}/model.json",
    output:
        model=f"{RESULTS}/{{of}}merged/{{arm}}/seed{{seed}}/model.json",
    log:
        f"{LOGS}/{{of}}merged/{{arm}}/seed{{seed}}.log",
    benchmark:
        f"{LOGS}/benchmarks/{{of}}merged/{{arm}}/seed{{seed}}.tsv"
    conda:
        "../envs/regdpo.yaml"
    threads: 1
    resources:
        mem_mb=declare.memory(3000, 24000),
        runtime=60,
    params:
        code=declare.code("merged", FAMILY),
        env=declare.env("torch", "diffusers"),
        damage=lambda wildcards: damage.digest(
            f"{RESULTS}/{wildcards.of}merged/{wildcards.arm}/seed{wildcards.seed}/model.json"
        ),
    shell:
        "stage merged --model {input.model:q} --out {output.model:q} 2>&1 | tee -i {log:q}"
