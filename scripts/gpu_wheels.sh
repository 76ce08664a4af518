#!/usr/bin/env bash
# Collects the wheels that a GPU machine without a network lacks for `python -m benchmarks.gpu`, into a folder:
#
#     scripts/gpu_wheels.sh wheels 0.26.0 3.12          torchvision made for its torch (2.11 -> 0.26), its Python
#
# There, with the folder beside the checkout:
#
#     python -m pip install --no-index --no-deps --target site wheels/*.whl
#     PYTHONPATH=.:site python -m benchmarks.gpu --out docs/gpu.json
#
# It must have torch, numpy, einops, safetensors, accelerate, transformers, huggingface_hub and Pillow of its own. Prints
# the size of the folder. Without these wheels the cases that need them fall away, and the others run.
set -euo pipefail
if [ $# -ne 3 ]; then
    echo "gpu_wheels: expected FOLDER TORCHVISION PYTHON, as wheels 0.26.0 3.12, found $# arguments; see the head of $0" >&2
    exit 2
fi
folder=$1 torchvision=$2 python=$3
versions() {  # of packages, those that the tests run with
    for name; do grep -oE "^$name==[^ ;]+" "$(dirname "$0")/../constraints.txt"; done
}
packages=$(versions open-clip-torch ftfy wcwidth regex timm diffusers)
mkdir -p "$folder"
"${PIP_PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --python-version "$python" --implementation cp \
    --dest "$folder" "torchvision==$torchvision" $packages
du -sh "$folder"
