#!/bin/bash
# beside_torch.sh - gantry and PyTorch on the same device: OpenVLA-7B's sizes acting, acting with adapters, learning by them; one
# table of ratios. Four to six minutes, so no part of gpu-check. Skips with a reason where there is no GPU, or no PyTorch that
# sees it (status 0).
#
#   tests/gpu/beside_torch.sh [REPORT]      default build/beside-torch.txt; needs bench_gpu_models (`make gpu-beside`, a bundle)
#                                           $GANTRY_TEST_DEVICE, default cuda:0; $PYTHON, default python3
#
# gantry's side is bench_gpu_models in fast numerics, the other tests/bench/torch_gpu.py, which says what is compared with what.
# Each part is a process with a time of its own; the report has what it said, as far as it came. ($BESIDE_BIN is for its test.)
set -u
cd "$(dirname "$0")/../.." || exit 1
device=${GANTRY_TEST_DEVICE:-cuda:0} python=${PYTHON:-python3}
bench=${BESIDE_BIN:-build/release/tests/bench}/bench_gpu_models
report=${1:-build/beside-torch.txt} failed=''
mkdir -p "$(dirname "$report")"
measured=$(mktemp)
trap 'rm -f "$measured"' EXIT
before=${GPU_BUNDLE_BEFORE-${LD_LIBRARY_PATH:-}}        # PyTorch's libraries are its own affair

say() { echo "$@" | tee -a "$report"; }
# shellcheck source=tests/gpu/libraries.sh
. tests/gpu/libraries.sh

# part NAME SECONDS COMMAND...
part() {
    local name=$1 most=$2 begin=$SECONDS status said
    shift 2
    echo "---- $name: $*" >>"$report"
    stdbuf -oL timeout -k 5 "$most" "$@" 2>&1 | tee -a "$report" >"$measured.part"
    status=${PIPESTATUS[0]}
    cat "$measured.part" >>"$measured"
    said=$(sed -n 's/^skipped: //p' "$measured.part")
    rm -f "$measured.part"
    case $status in
        0) say "ok   $name ($((SECONDS - begin)) s)" ;;
        77) say "SKIP $name: $said"; return 77 ;;
        *) failed="$failed $name"; say "FAIL $name (status $status, $((SECONDS - begin)) s): $report" ;;
    esac
}
pytorch() { part "$1" "$2" env LD_LIBRARY_PATH="$before" "$python" tests/bench/torch_gpu.py --device "$device" "${@:3}"; }

# The two kinds of lines, by what was done: gantry's rate, the best of PyTorch's and how it was had, and transformers' as users
# have it.
#   MODEL acts, numerics fast, B = 8: 100.00 actions/s, ...         MODEL acts, PyTorch compiled, B = 8: 90.00 actions/s, ...
table() {
    awk '
    !/, B = [0-9]+: [0-9.]+ (actions|samples)\/s/ { next }
    {
        split($0, part, ", ")
        what = part[1]; sub(/^[^ ]+ /, "", what)
        batch = $0; sub(/.*, B = /, "", batch); rate = batch; sub(/:.*/, "", batch); sub(/^[0-9]+: /, "", rate)
        key = sprintf("%s, B = %s", what, batch)
        if (!(key in unit)) order[++n] = key
        unit[key] = rate; sub(/^[0-9.]+ /, "", unit[key]); sub(/\/s.*/, "/s", unit[key])
        rate += 0
        how = part[2]
        if (how ~ /^numerics/) ours[key] = rate
        else if (sub(/^PyTorch /, "", how)) {
            if (how == "transformers") public[key] = rate
            if (rate > best[key]) { best[key] = rate; by[key] = how }
        }
    }
    function ratio(of, over) { return of > 0 && over > 0 ? sprintf("%.2f", of / over) : "-" }
    function number(x) { return x > 0 ? sprintf("%.2f", x) : "-" }
    END {
        form = "%-30s %-10s %9s %9s %-13s %7s %13s %7s\n"
        printf form, "", "", "gantry", "PyTorch", "", "ratio", "transformers", "ratio"
        for (i = 1; i <= n; i++) {
            k = order[i]
            printf form, k, unit[k], number(ours[k]), number(best[k]), by[k], ratio(ours[k], best[k]), number(public[k]),
                ratio(ours[k], public[k])
        }
    }' "$measured"
}

: >"$report"
say "beside PyTorch on $device, $(git describe --always --dirty 2>/dev/null || cat version 2>/dev/null), $(date -u +%FT%TZ)"
facts=name,driver_version,memory.total,memory.used,clocks.sm,clocks.max.sm,power.limit
nvidia-smi --query-gpu=$facts --format=csv >>"$report" 2>/dev/null
pytorch look 60 --look || exit 0
find_libraries
for which in act:60 train:90 adapters:60; do
    part "${which%:*}" "${which#*:}" "$bench" "$device" "${which%:*}" fast
    [ $? = 77 ] && exit 0
done
pytorch torch 240 --seconds 180
{ echo; table; } | tee -a "$report"
if [ -n "$failed" ]; then
    say "beside_torch: FAILED:$failed"
    exit 1
fi
say "beside_torch: done ($SECONDS s)"
