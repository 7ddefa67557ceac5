# The stages' images, named by the digest of what goes into them: built once, and again only when
# a lock changes. Needs Debian's packages and PyPI; `snakemake --cores all images`.
image_stem = f"{study.images.folder}/{{stage}}-{{image_digest}}"


rule build_image:
    output:
        sif=f"{image_stem}.sif",
        oci=f"{image_stem}.oci.tar",
        bill=f"{image_stem}.cdx.json",
        facts=f"{image_stem}.json",
        times=f"{image_stem}.timing.json",
    log:
        paths.log("build_image", "stage", "image_digest"),
    benchmark:
        paths.benchmark("build_image", "stage", "image_digest")
    wildcard_constraints:
        stage="train|serve|score|stats",
        image_digest="[0-9a-f]{16}",
    localrule: True
    # It needs this machine: its own Debian sources and package index, and all cores for a while.
    handover: True
    params:
        flavour=study.images.flavour,
    message:
        "Image of {wildcards.stage}"
    shell:
        "zpdbench build-image --stage {wildcards.stage} --flavour {params.flavour:q}"
        " --out {output.sif:q} &> {log:q}"


rule images:
    input:
        [image for image in images.values() if "://" not in image],
    localrule: True
