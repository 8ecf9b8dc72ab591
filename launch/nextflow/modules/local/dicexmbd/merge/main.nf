// One output folder from those of all shares.
process DICEXMBD_MERGE {
    tag "$meta.id"
    label 'process_single'

    input:
    tuple val(meta), path(images, stageAs: 'images/*'), path(shares, stageAs: 'shares/*')

    output:
    tuple val(meta), path("${prefix}")               , emit: results
    tuple val(meta), path("${prefix}/masks/*.tiff")  , emit: masks, optional: true
    tuple val(meta), path("${prefix}/cells.h5ad")    , emit: anndata
    tuple val(meta), path("${prefix}/failures.csv")  , emit: failures
    path "versions.yml"                              , emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    dicexmbd predict --merge \\
        --images=images \\
        --shares=shares \\
        --output='${prefix}' \\
        --allow_failures \\
        ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        dicexmbd: \$(dicexmbd --version | sed 's/^dicexmbd //')
    END_VERSIONS
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p '${prefix}'
    touch '${prefix}/cells.h5ad' '${prefix}/failures.csv'

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        dicexmbd: \$(dicexmbd --version | sed 's/^dicexmbd //')
    END_VERSIONS
    """
}
