#!/bin/bash
# check.sh - everything that needs a GPU; `make gpu-check` builds and calls it. Skips with a reason where there is none (status 0).
#
#   tests/gpu/check.sh [REPORT]         default build/gpu-check.txt; $GANTRY_TEST_DEVICE, default cuda:0
#
# The device tests of tests/nn run on the real device: the same grid of ops, models, goldens (with GANTRY_GOLDENS), training and
# graphs that the emulated device runs in `make test`; cuDNN's plans beside the own attention, and NCCL as far as one rank goes. Then the
# benches. All of it within LIMIT seconds, whatever hangs. The last line says how it went.
set -u
cd "$(dirname "$0")/../.."
export GANTRY_TEST_DEVICE=${GANTRY_TEST_DEVICE:-cuda:0}
report=${1:-build/gpu-check.txt}
bin=build/release/tests failed=0 LIMIT=470

say() { echo "$@" | tee -a "$report"; }
# At most $1 seconds, and no more than are left.
within() { local most=$1 left=$((LIMIT - SECONDS)); shift; [ $left -gt 5 ] || return 124; timeout -k 5 $((most < left ? most : left)) "$@"; }

: >"$report"
say "gpu-check on $GANTRY_TEST_DEVICE, $(git describe --always --dirty 2>/dev/null), $(date -u +%FT%TZ)"
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv,noheader >>"$report" 2>/dev/null
for t in test_device test_device_model test_device_train test_device_graphs test_device_memory test_device_dnn; do
    begin=$SECONDS
    within 120 "$bin/nn/$t" >build/gpu-$t.log 2>&1
    status=$?
    if [ $status = 77 ]; then
        say "SKIP $t: $(sed -n 's/^skipped: //p' build/gpu-$t.log)"
        exit 0
    fi
    cat build/gpu-$t.log >>"$report"
    if [ $status = 0 ]; then
        say "ok   $t ($((SECONDS - begin)) s)"
    else
        failed=1
        say "FAIL $t (status $status, $((SECONDS - begin)) s): build/gpu-$t.log"
    fi
done
if command -v compute-sanitizer >/dev/null; then
    if within 150 compute-sanitizer --error-exitcode 9 "$bin/nn/test_device" >build/gpu-sanitizer.log 2>&1; then
        say "ok   compute-sanitizer on the ops"
    else
        failed=1
        say "FAIL compute-sanitizer on the ops (status $?): build/gpu-sanitizer.log"
    fi
else
    say "SKIP compute-sanitizer: not installed"
fi
within 120 build/release/tests/bench/bench_gpu >build/gpu-bench.log 2>&1 || { failed=1; say "FAIL bench_gpu"; }
cat build/gpu-bench.log >>"$report"
[ $failed = 0 ] && say "gpu-check: all passed ($SECONDS s)" || say "gpu-check: FAILED ($SECONDS s)"
exit $failed
