#!/bin/bash
# run.sh - every test that needs no GPU, in groups; `make test` calls it.
#
#   tests/run.sh                  all groups but tidy (clang-tidy), which takes seven minutes
#   tests/run.sh unit nn          these only;  tests/run.sh --list names them
#
# Each test program runs at the top of the tree under a timeout (TEST_TIMEOUT seconds, default 600) in its own
# temporary directory ($TMPDIR); its output is shown only when it fails. A cmocka program counts with the tests in
# it, any other program as one. The last line is "N passed, N failed, N skipped"; the exit status is 1 if anything
# failed; SLOWEST=1 lists the slowest system tests. Golden files too large for the tree are looked for in
# $GANTRY_GOLDENS; without it those tests are skipped.
set -u
cd "$(dirname "$0")/.."

groups="layers headers nogpu unit nn sim fuzz asan tsan system fault"
more="tidy"
jobs=$(nproc)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/gantry-test.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0 skipped=0         # all groups
group_passed=0 group_failed=0 group_skipped=0

usage() { sed -n '2,12s/^# \{0,1\}//p' "$0"; }

# Adds to the group: count PASSED FAILED SKIPPED
count() {
    group_passed=$((group_passed + $1)) group_failed=$((group_failed + $2)) group_skipped=$((group_skipped + $3))
}

show() { sed 's/^/    | /' "$1" | tail -n "${2:-60}"; }

# A build or a check that is one test: step NAME COMMAND...
step() {
    local name=$1 log=$scratch/step.log
    shift
    if "$@" >"$log" 2>&1; then
        count 1 0 0
    else
        count 0 1 0
        echo "  FAIL $name ($*)"
        show "$log"
    fi
}

# make, quietly; returns its status and counts nothing when it works.
build() {
    local log=$scratch/build.log
    make --no-print-directory -j"$jobs" "$@" >"$log" 2>&1 && return 0
    count 0 1 0
    echo "  FAIL build: make ${*:1:3} ..."
    grep -E 'error|Error|undefined reference|No rule' "$log" >"$scratch/shown.log" || cp "$log" "$scratch/shown.log"
    show "$scratch/shown.log" 15
    return 1
}

# One test program: run_one PROGRAM [ARGUMENTS]; writes "passed failed skipped" to its .count and its output to .log.
run_one() {
    local program=$1 name status log dir ok bad not
    shift
    name=$(echo "$program" | tr / _)
    log=$scratch/$name.log dir=$(mktemp -d "$scratch/XXXX")        # short: sockets lie there, too
    TMPDIR=$dir timeout -k 5 "${TEST_TIMEOUT:-600}" "$program" "$@" >"$log" 2>&1
    status=$?
    rm -rf "$dir"
    if grep -q '^\[=*\] ' "$log"; then
        ok=$(grep -c '^\[ *OK *\]' "$log")
        bad=$(grep -E '^\[ *(FAILED|ERROR) *\] (GROUP )?[A-Za-z_0-9]+( SETUP| TEARDOWN)?$' "$log" | sort -u | wc -l)      # named twice, too
        not=$(grep -c '^\[ *SKIPPED *\] [a-z]' "$log")
        not=$((not / 2))            # cmocka names each twice: where it happens, and in the summary
        [ "$not" = 0 ] && grep -q '^\[ *SKIPPED *\] [a-z]' "$log" && not=1
    elif [ "$status" = 77 ]; then
        ok=0 bad=0 not=1
    else
        ok=$((status == 0)) bad=0 not=0
    fi
    [ "$status" != 0 ] && [ "$status" != 77 ] && [ "$bad" = 0 ] && bad=1
    [ "$status" = 0 ] && bad=0
    [ "$status" = 124 ] && echo "timed out after ${TEST_TIMEOUT:-600} s" >>"$log"
    echo "$ok $bad $not" >"$scratch/$name.count"
    echo "$status" >"$scratch/$name.status"
}

# Several programs, one more at a time than there are cores, for some wait: run_all "PROGRAM [ARGUMENTS]"...
run_all() {
    local line name ok bad not
    for line in "$@"; do
        while [ "$(jobs -rp | wc -l)" -ge "${RUN_JOBS:-$((jobs + 1))}" ]; do wait -n; done
        # shellcheck disable=SC2086
        run_one $line &
    done
    wait
    for line in "$@"; do
        name=$(echo "${line%% *}" | tr / _)
        read -r ok bad not <"$scratch/$name.count"
        count "$ok" "$bad" "$not"
        if [ "$bad" != 0 ]; then
            echo "  FAIL ${line%% *} (status $(cat "$scratch/$name.status"))"
            grep -vE '^\[ *(RUN|OK) *\]' "$scratch/$name.log" >"$scratch/shown.log"
            show "$scratch/shown.log"
        fi
        grep -hiE '^skip(ped)?:|: skipped' "$scratch/$name.log" | sort -u | sed "s,^,  ${line%% *}: ," | head -5
    done
}

# Test programs of folders, built under a sanitizer ("" for none): programs FOLDER...
programs() {
    local folder source
    for folder in "$@"; do
        for source in tests/"$folder"/test_*.c; do
            [ -e "$source" ] && echo "${source%.c}"
        done
    done
}

group_layers() { step layers tests/check_layers.py; }
group_headers() { step headers make --no-print-directory -j"$jobs" check-headers; }
# As it is built where there is no CUDA toolkit; optimised, it would take twice as long.
nogpu_says_so() {
    build/gpu0/bin/gantry-learner --device cuda:0 --run-dir /nonexistent 2>&1 | grep -F 'made with GPU=0, or without nvcc' || { echo "no word of it"; return 1; }
}
group_nogpu() {
    step GPU=0 make --no-print-directory -j"$jobs" GPU=0 B=build/gpu0 BIN=build/gpu0/bin OPT="-O0 -g0" && step "GPU=0 says so" nogpu_says_so
}
group_tidy() { step tidy make --no-print-directory -j"$jobs" tidy; }

built() {       # built SANITIZE PROGRAM...
    local directory=build/release sanitize=$1
    shift
    [ $# = 0 ] && return 1
    [ -n "$sanitize" ] && directory=build/${sanitize//,/-}
    build SANITIZE="$sanitize" "${@/#/$directory/}" || return 1
    run_all "${@/#/$directory/}"
}

# shellcheck disable=SC2046
group_unit() { built "" $(programs unit); }
# Two at a time, however many cores there are: a model takes memory.
# shellcheck disable=SC2046
group_nn() { RUN_JOBS=2 built "" $(programs nn); }
# shellcheck disable=SC2046
group_sim() { built "" $(programs sim); }

fuzz_with() {
    local sanitize=$1 directory=build/${1//,/-} target names=() lines=()
    for target in tests/fuzz/fuzz_*.c; do
        target=$(basename "$target" .c)
        names+=("$directory/tests/fuzz/$target")
        lines+=("$directory/tests/fuzz/$target tests/fuzz/corpus/${target#fuzz_}")
    done
    build SANITIZE="$sanitize" "${names[@]}" && run_all "${lines[@]}"
}
group_fuzz() { fuzz_with address,undefined; }

# shellcheck disable=SC2046
group_asan() {
    export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:halt_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
    export LSAN_OPTIONS=suppressions=$PWD/tests/lsan.supp:print_suppressions=0
    built address,undefined $(programs unit wire | grep -vE "${ASAN_SKIP:-^$}")
    daemons address,undefined
}

# What runs on several threads: the loop, the wire, the slots of an env worker, the server's compute threads.
# shellcheck disable=SC2046
group_tsan() {
    export TSAN_OPTIONS=halt_on_error=1:suppressions=$PWD/tests/tsan.supp
    built thread $(programs unit wire env_worker | grep -E '/(wire|env_worker)/|test_(loop|admin|metrics|wire|zsock|hostile|security|member|server|client|slots|env_worker|holder|serve|worker|batcher|remote|journal_thread)')
    daemons thread
}

run_pytest() {      # run_pytest NAME ARGUMENT...: counted, shown when it fails
    local name=$1 log=$scratch/$1.log n pytest status
    shift
    pytest=$(command -v pytest-3 || command -v pytest)
    timeout -k 10 "${SYSTEM_TIMEOUT:-1500}" "$pytest" -q -rsfE --durations=12 -p no:cacheprovider --basetemp="$scratch/$name" "$@" >"$log" 2>&1
    status=$?
    tally() { n=$(tail -n 3 "$log" | grep -oE "[0-9]+ $1" | head -1 | cut -d' ' -f1); echo "${n:-0}"; }
    count "$(tally passed)" "$(($(tally failed) + $(tally error)))" "$(tally skipped)"
    [ "$status" != 0 ] && [ "$(tally failed)" = 0 ] && [ "$(tally error)" = 0 ] && count 0 1 0
    [ "$status" != 0 ] && show "$log" 120
    grep -h '^SKIPPED' "$log" | sed 's/^/  /'
    [ -n "${SLOWEST:-}" ] && grep -E '^[0-9.]+s (call|setup)' "$log" | sed 's/^/  /'
    return 0
}

beside() {          # beside loadfile|load: one file or test more side by side than there are cores, if pytest can
    # Half the time goes in waiting. Not more than four: each test has its own daemons, and memory for them.
    "$(command -v pytest-3 || command -v pytest)" -n 0 --version >/dev/null 2>&1 && echo "-n $((jobs < 4 ? jobs + 1 : 4)) --dist $1"
}

# The daemons of a build with sanitizers (tests/system/sanitized.py), all five under junk and lies and through a short run.
daemons() {
    # shellcheck disable=SC2046
    build SANITIZE="$1" all && GANTRY_SANITIZED=${1//,/-} run_pytest "daemons-${1//,/-}" $(beside load) \
        tests/system/test_{strangers,end_to_end}.py -k "not tiny_run"
}

pytest_in() {       # pytest_in FOLDER loadfile|load: the tests with real daemons there
    compgen -G "tests/$1/test_*.py" >/dev/null || { echo "  there are no $1 tests"; return; }
    # shellcheck disable=SC2046
    build all && run_pytest "$1" $(beside "$2") "tests/$1"
}
# test_device_* want programs that are linked to the emulated device
group_system() { build build/release/tests/emulate/{gantry-learner,gantry,libnccl.so.2,old-driver/libcuda.so.1} && pytest_in system loadfile; }
group_fault() { pytest_in fault load; }

wanted=
for word in "$@"; do
    case " $groups $more " in
        *" $word "*) wanted="$wanted $word" ;;
        *) [ "$word" = --list ] && { echo "$groups $more"; exit 0; }
           [ "$word" = --help ] && { usage; exit 0; }
           echo "run.sh: there is no group '$word'; groups: $groups $more" >&2; exit 2 ;;
    esac
done
begun=$SECONDS
for group in ${wanted:-$groups}; do
    group_passed=0 group_failed=0 group_skipped=0 start=$SECONDS
    "group_$group"
    printf '%-8s %4d passed, %d failed, %d skipped  (%d s)\n' "$group" $group_passed $group_failed $group_skipped $((SECONDS - start))
    passed=$((passed + group_passed)) failed=$((failed + group_failed)) skipped=$((skipped + group_skipped))
done
echo "all groups: $((SECONDS - begun)) s"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ] && [ $passed != 0 ]
