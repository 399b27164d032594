#!/bin/bash
# check.sh - everything that needs a GPU; `make gpu-check` builds and calls it. Skips with a reason where there is none (status 0).
#
#   tests/gpu/check.sh [REPORT]         default build/gpu-check.txt; $GANTRY_TEST_DEVICE, default cuda:0; GPU_CHECK_MODEL, default openvla-7b
#
# The device tests of tests/nn run on the real device: the same grid of ops, models, goldens (with GANTRY_GOLDENS), training, graphs and contract that the
# emulated device runs in `make test`; cuDNN's plans beside the own attention, and NCCL as far as one rank goes. Then the kernels' rates, whole models of
# the real size with random weights (actions, samples, chunks and scores a second beside a roofline), and compute-sanitizer on the grid of ops: memcheck,
# initcheck and racecheck on the own kernels, memcheck with the libraries' as well (the toolkit's, or what `make sanitizer` fetches).
#
# Each part is a process of its own with a time of its own, and the report has what it said, as far as it came, before the next begins: what crashes
# or hangs takes nothing else with it. Parts are in the order of their worth (are the kernels right, are the aims met, then the rest); what LIMIT leaves no
# time for is named. The report ends with all that was measured once more, and one line that says how it went. (GPU_CHECK_BIN, GPU_CHECK_SANITIZER, and GPU_CHECK_LIMIT
# and GPU_CHECK_MOST, of all and of a part, are for its test.)
set -u
cd "$(dirname "$0")/../.." || exit 1
export GANTRY_TEST_DEVICE=${GANTRY_TEST_DEVICE:-cuda:0}
report=${1:-build/gpu-check.txt} model=${GPU_CHECK_MODEL:-openvla-7b}
bin=${GPU_CHECK_BIN:-build/release/tests} gantry=${GPU_CHECK_BIN:-bin}/gantry logs=$(dirname "$report") failed='' left_out='' LIMIT=${GPU_CHECK_LIMIT:-470}
mkdir -p "$logs"
SECONDS=0
measured=$logs/gpu-measured.txt

say() { echo "$@" | tee -a "$report"; }

# part NAME SECONDS COMMAND...: 0 passed, 77 skipped, else failed. Killed with what it has started when its time is over.
part() {
    local name=$1 most=${GPU_CHECK_MOST:-$2} left=$((LIMIT - SECONDS)) begin=$SECONDS status log
    shift 2
    log=$logs/gpu-$name.log
    if [ $left -lt 10 ]; then
        say "LEFT $name: no time is left"
        left_out="$left_out $name"
        return 1
    fi
    stdbuf -oL timeout -k 5 $((most < left ? most : left)) "$@" >"$log" 2>&1
    status=$?
    { echo; echo "---- $name: $*"; cat "$log"; } >>"$report"
    grep -hE '(TFLOP|GB|actions|samples|chunks|scores|steps)/s|contract, numerics|foretold|refused|of few rows|(ERROR|RACECHECK) SUMMARY' "$log" | sed "s/^/$name: /" >>"$measured"
    case $status in
        0) say "ok   $name ($((SECONDS - begin)) s)" ;;
        77) [[ " ops pictures large " == *" $name "* ]] || failed="$failed $name"       # there was a device when it began
            say "SKIP $name: $(sed -n 's/^skipped: //p' "$log")" ;;
        124 | 137) failed="$failed $name"; say "FAIL $name: not done in $((SECONDS - begin)) s: $log" ;;
        *) failed="$failed $name"; say "FAIL $name (status $status, $((SECONDS - begin)) s): $log" ;;
    esac
    return $status
}
# shellcheck source=tests/gpu/libraries.sh
. tests/gpu/libraries.sh
sanitizer=${GPU_CHECK_SANITIZER-$(PATH=$PATH:/usr/local/cuda/bin:$PWD/.deps/compute-sanitizer/bin command -v compute-sanitizer)}

# sanitize NAME SECONDS TOOL: the grid of ops under it. 9: it found something, 255: it could not look.
sanitize() {
    if [ -z "$sanitizer" ]; then
        say "SKIP $1: compute-sanitizer is not installed; \`make sanitizer\` fetches it"
        return
    fi
    part "$1" "$2" "$sanitizer" --tool "$3" --error-exitcode 9 "$bin/nn/test_device"
}
models() { part "$1-$2" "$3" "$bin/bench/bench_gpu_models" "$GANTRY_TEST_DEVICE" "$1" "$2" "$model"; }

: >"$report"; : >"$measured"
say "gpu-check on $GANTRY_TEST_DEVICE, $(git describe --always --dirty 2>/dev/null || cat version 2>/dev/null), $(date -u +%FT%TZ)"
nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used,clocks.sm,clocks.max.sm,power.limit --format=csv >>"$report" 2>/dev/null
find_libraries
[ -n "${GANTRY_GOLDENS:-}" ] || say "note: GANTRY_GOLDENS is not set: models are not held to the reference's numbers"

part ops 60 "$bin/nn/test_device"
[ $? = 77 ] && exit 0
part step 20 "$bin/nn/test_device_step"
part narrow 20 "$bin/nn/test_device_narrow"
part products 40 "$bin/nn/test_device_blas"
part attention 40 "$bin/nn/test_device_dnn"
models act fast 60
models train fast 70
part kernels 60 "$bin/bench/bench_gpu" "$GANTRY_TEST_DEVICE"
part models 90 "$bin/nn/test_device_model"
part contract 60 "$bin/nn/test_device_contract"
part graphs 40 "$bin/nn/test_device_graphs"
part training 60 "$bin/nn/test_device_train"
part chunks 40 "$bin/nn/test_device_oft"
part nccl 40 "$bin/nn/test_device_ranks"
part memory 40 "$bin/nn/test_device_memory"
part base 20 "$bin/nn/test_device_base"
models contract fast 60
models oft fast 50
models prm fast 40
models adapters fast 50
models score fast 50
models train strict 70
models act strict 60
part large 40 "$bin/nn/test_device_large"
GANTRY_TEST_OWN=1 sanitize memcheck 100 memcheck
# Pictures by EGL: the program says who drew them, and how many there are a second.
pictures() {
    local said
    said=$("$gantry" sim render --suite tabletop --renderer auto --size 224 -o "$logs/gpu-pictures" 2>&1) || { echo "$said"; return 1; }
    echo "$said"
    case $said in *"in software"*) echo "skipped: EGL has no GPU here (libnvidia-gl)"; return 77 ;; *"drawn by"*) ;; *) return 1 ;; esac
    "$gantry" sim bench --suite tabletop --renderer auto --size 224 --seconds 2 --slots 4 --processes 1,4 --pictures 0,1 |
        awk '/^ +[0-9]/ { by = $9; for (i = 10; i <= NF; i++) by = by " " $i; print $1 " pictures, " $2 " processes: " $4 " steps/s, drawn by " by }'
    return "${PIPESTATUS[0]}"
}
export -f pictures
gantry=$gantry logs=$logs part pictures 30 bash -c pictures
models contract strict 60
GANTRY_TEST_OWN=1 GANTRY_TEST_BRIEF=1 sanitize initcheck 50 initcheck
GANTRY_TEST_OWN=1 GANTRY_TEST_BRIEF=1 sanitize racecheck 60 racecheck
GANTRY_TEST_BRIEF=1 sanitize memcheck-libraries 60 memcheck

{ echo; echo "==== measured"; cat "$measured"; } | tee -a "$report"
rm -f "$measured"
if [ -z "$failed$left_out" ]; then
    say "gpu-check: all passed ($SECONDS s)"
else
    say "gpu-check: FAILED:${failed:- none}; left out:${left_out:- none} ($SECONDS s)"
    exit 1
fi
