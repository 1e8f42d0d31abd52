# The pinned packages with CUDA, without the developers' tools; the code is that of the folder mounted at /diffscope:
#
#   docker build -t diffscope .
#   docker run --gpus all -v "$PWD:/diffscope" diffscope --cores all --configfile my_models.yaml
#
# torch's wheels bring their CUDA libraries; the base image brings what NVIDIA's container toolkit
# needs to hand the GPU over. A C compiler serves kernels that are compiled at run time.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04

RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc git make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

COPY requirements-cuda.lock /opt/diffscope/requirements-cuda.lock
RUN python3 -m venv /opt/diffscope/venv \
    && /opt/diffscope/venv/bin/pip install --no-cache-dir --require-hashes \
        -r /opt/diffscope/requirements-cuda.lock

ENV PATH="/opt/diffscope/venv/bin:$PATH" \
    HF_HOME=/diffscope/.cache/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /diffscope
ENTRYPOINT ["snakemake"]
CMD ["--help"]
