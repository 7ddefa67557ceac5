rule make_crate:
    input:
        study=local(ancient(paths.study_lock)),
        results=rules.all.input,
    output:
        f"{paths.results}/crate.zip",
    log:
        paths.log("make_crate"),
    benchmark:
        paths.benchmark("make_crate")
    localrule: True
    container:
        images["stats"]
    threads: 1
    resources:
        **resources.for_rule(study, "make_crate"),
    params:
        digest=study.digest("make_crate"),
        workflow=os.path.relpath(workflow.basedir),
    message:
        "The study's evidence in one file"
    shell:
        "zpdbench make-crate --study {input.study:q} --workflow {params.workflow:q} --out {output:q}"
        " &> {log:q}"


# snakemake --cores all verify --config bundle=crate.zip level=2 [digest= signers= signature= data=
# seed= minutes=]
# The table and the page are logs, so that they stay when something differs.
rule verify:
    input:
        request.get("bundle", f"{paths.results}/crate.zip"),
    log:
        table=paths.table("verification"),
        page=f"{paths.results}/verification.html",
        said=paths.log("verify"),
    localrule: True
    container:
        images["stats"]
    threads: 2
    resources:
        **resources.for_rule(study, "verify"),
    params:
        asked=shlex.join(
            word
            for key in (
                "level",
                "minutes",
                "digest",
                "signers",
                "signature",
                "data",
                "seed",
            )
            if key in request
            for word in (f"--{key}", str(request[key]))
        ),
    message:
        "Which of the bundle's claims hold"
    shell:
        "zpdbench verify {input:q} {params.asked} --jobs {threads} --out {log.table:q}"
        " 2>&1 | tee {log.said:q}"
