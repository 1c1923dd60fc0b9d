# The trained weights where people look for them, with a README that says how to load them.
rule arm_weights:
    input:
        model=f"{RESULTS}/{{of}}train/{{arm}}/seed{{seed}}/model.json",
    output:
        readme=f"{RESULTS}/{{of}}weights/{{arm}}/seed{{seed}}/README.md",
    log:
        f"{LOGS}/{{of}}weights/{{arm}}/seed{{seed}}.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        config=declare.reads(stage_inputs.WeightsStage),
        code=declare.code("weights"),
        env=declare.env("diffusers"),
    shell:
        "stage weights --model {input.model:q} --out {output.readme:q} 2>&1 | tee -i {log:q}"


# The adapters in another program's names, made of what was exported: another format trains nothing again.
rule export_comfyui:
    input:
        model=f"{RESULTS}/{{of}}train/{{arm}}/seed{{seed}}/model.json",
    output:
        adapters=f"{RESULTS}/{{of}}weights/{{arm}}/seed{{seed}}/comfyui.safetensors",
    log:
        f"{LOGS}/{{of}}export/{{arm}}/seed{{seed}}.log",
    localrule: True
    conda:
        "../envs/regdpo.yaml"
    params:
        code=declare.code("export"),
    shell:
        "stage export --model {input.model:q} --out {output.adapters:q} 2>&1 | tee -i {log:q}"


COMFYUI = settings.lora_arms if "comfyui" in settings.train.export_formats else []


rule weights:
    input:
        expand(rules.arm_weights.output.readme, of=BASES, arm=LINKS, seed=SEEDS),
        expand(
            rules.export_comfyui.output.adapters,
            of=BASES,
            arm=COMFYUI,
            seed=SEEDS,
        ),
