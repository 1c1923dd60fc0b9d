# What is measured on the samples, one manifest a model and measure.


rule proxies:
    input:
        samples=f"{RESULTS}/samples/{{model}}.parquet",
    output:
        scores=f"{RESULTS}/scores/{{model}}/proxies.parquet",
    log:
        f"{LOGS}/scores/{{model}}/proxies.log",
    benchmark:
        f"{LOGS}/benchmarks/scores/{{model}}/proxies.tsv"
    conda:
        "../envs/regdpo.yaml"
    threads: 1
    resources:
        mem_mb=declare.memory(2000),
        runtime=60,
    params:
        code=declare.code("proxies"),
        env=declare.env("scikit-image", "opencv-python-headless", "av"),
    shell:
        "stage proxies --samples {input.samples:q} --out {output.scores:q}"
        " 2>&1 | tee -i {log:q}"


rule vbench:
    input:
        samples=f"{RESULTS}/samples/{{model}}.parquet",
    output:
        scores=f"{RESULTS}/scores/{{model}}/vbench.parquet",
    log:
        f"{LOGS}/scores/{{model}}/vbench.log",
    benchmark:
        f"{LOGS}/benchmarks/scores/{{model}}/vbench.tsv"
    conda:
        "../envs/regdpo.yaml"
    threads: 1
    resources:
        mem_mb=declare.memory(3000, 16000),
        runtime=240,
        gpu=1,
    params:
        config=declare.reads(stage_inputs.VBenchStage),
        code=declare.code("vbench"),
        env=declare.env("vbench", "decord", "numpy", lock="vbench"),
        available=vbench.installed(settings.scores.vbench.python),
    shell:
        "stage vbench"
        " --samples {input.samples:q} --out {output.scores:q} 2>&1 | tee -i {log:q}"


rule held_out_error:
    input:
        model=model_file,
        latents=f"{RESULTS}/latents/gt.parquet",
    output:
        scores=f"{RESULTS}/scores/{{model}}/held_out.parquet",
    log:
        f"{LOGS}/scores/{{model}}/held_out.log",
    benchmark:
        f"{LOGS}/benchmarks/scores/{{model}}/held_out.tsv"
    conda:
        "../envs/regdpo.yaml"
    threads: 1
    resources:
        mem_mb=declare.memory(3000, 64000),
        runtime=240,
        gpu=1,
    params:
        config=declare.reads(stage_inputs.ErrorsStage),
        code=declare.code("held_out", FAMILY),
        env=declare.env("torch", "diffusers", "peft"),
    shell:
        "stage held_out --model {input.model:q}"
        " --latents {input.latents:q} --out {output.scores:q} 2>&1 | tee -i {log:q}"


rule merge_scores:
    input:
        expand(
            f"{RESULTS}/scores/{{model}}/{{measure}}.parquet",
            model=["real", *MODELS],
            measure=["proxies", "vbench"],
        ),
        expand(f"{RESULTS}/scores/{{model}}/held_out.parquet", model=MODELS),
    output:
        scores=f"{RESULTS}/scores.parquet",
    log:
        f"{LOGS}/scores/merge.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        code=declare.code("merge"),
    shell:
        "stage merge --rows ScoreRow --out {output.scores:q} {input:q} 2>&1 | tee -i {log:q}"


rule evaluate:
    input:
        rules.merge_scores.output,
