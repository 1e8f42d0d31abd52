# The pinned packages with CUDA; the code is that of the folder mounted at /diffscope:
#
#   docker build -t diffscope .
#   docker run --gpus all -v "$PWD:/diffscope" diffscope --cores all --configfile my_models.yaml
#
# torch's wheels bring their CUDA libraries; the base image brings what NVIDIA's container toolkit
# needs to hand the GPU over. A C compiler serves kernels that are compiled at run time.
FROM nvidia/cuda:12.8.1-base-ubuntu24.04

RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc git make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

COPY requirements.lock /opt/diffscope/requirements.lock
RUN python3 -m venv /opt/diffscope/venv \
    && /opt/diffscope/venv/bin/pip install --no-cache-dir -r /opt/diffscope/requirements.lock

ENV PATH="/opt/diffscope/venv/bin:$PATH" \
    HF_HOME=/diffscope/.cache/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /diffscope
ENTRYPOINT ["snakemake"]
CMD ["--help"]
