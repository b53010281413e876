#!/usr/bin/env bash
# What a GPU makes of editsafety, in under eight minutes, on a machine without a network:
#
#     benchmarks/gpu.sh OUT [WHEELS]
#
# OUT is a folder for what is found. WHEELS is a folder of wheels to install first, editsafety's own among them (`python -m
# build --wheel`; beside torch and transformers it needs pytest-xdist, pytest-benchmark, pydantic and what `pip check` misses).
# SMALL=1 tries the script on a CPU: pocket models in place of large shapes. A step that fails or takes too long is
# written down, and the next one is run.
set -uo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
out=$(mkdir -p "${1:?give a folder for what is found}" && cd "$1" && pwd)
if [ -n "${2:-}" ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$out/../editsafety-site" "$2"/*.whl || exit 1
    export PYTHONPATH="$out/../editsafety-site"
fi
export EDITSAFETY_CACHE="$out/../editsafety-cache" HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
if [ -n "${SMALL:-}" ]; then
    device=cpu xl=pocket-neo seven=pocket-qwen sizes=1,2 against=1 edits=3
else
    device=cuda xl=random:gpt2-xl seven=random:llama-2-7b sizes=1,8,32,128 against=8 edits=107
fi
cd "$here"

step() { # step NAME SECONDS COMMAND...: its output to NAME.log, a line to summary.txt
    local name=$1 limit=$2 start code
    shift 2
    start=$(date +%s)
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    code=$?
    echo "$name: exit $code after $(($(date +%s) - start)) s" | tee -a "$out/summary.txt"
}

: >"$out/summary.txt"
{ command -v nvidia-smi >/dev/null && nvidia-smi; python3 -c "import torch, transformers; print(torch.__version__, transformers.__version__)"; } >"$out/machine.txt" 2>&1

step tests 60 python3 -m pytest -q -n 0 -p no:cacheprovider tests/system/test_gpu.py tests/faults/test_devices.py
step pocket 90 python3 -m editsafety run --model pocket-neo --editor rome --editor memit --limit 12 --device $device -n 0 -o "$out/../pocket"
# As many edits as HardCF has, each with its perplexity, on the shape of GPT-2 XL: to be done in 60 s.
step hardcf 100 python3 -m editsafety run --model $xl --editor rome --normal pocket-world/pool --limit $edits --texts-from pocket-world/texts \
    --controls 0 --suite collapse --device $device -n 0 --all-facts -o "$out/../hardcf"
step xl-float32 80 python3 benchmarks/blocks.py --model $xl --device $device --sizes $sizes --against $against
step xl-bfloat16 60 python3 benchmarks/blocks.py --model $xl --device $device --dtype bfloat16 --sizes $sizes --against 1
step seven-bfloat16 80 python3 benchmarks/blocks.py --model $seven --device $device --dtype bfloat16 --sizes $sizes --against 1 --editor rome --editor memit
step races 60 python3 -m editsafety bench rome memit-8 questions ppl-third --model $xl --device $device --pairs 3 -o "$out/races.json"
for run in pocket hardcf; do
    [ -f "$out/../$run/report.md" ] && cp "$out/../$run/report.md" "$out/$run.md"
done
cat "$out/summary.txt"
