#!/bin/sh
# libero_assets.sh - fetch the robosuite files that the LIBERO suites need; say how to get LIBERO's own.
#
# robosuite 1.4.0 (MIT) comes from its PyPI wheel; the 69 files of deploy/robosuite-1.4.0.sha256 (the Panda arm, its gripper,
# its mount) are unpacked into .deps/robosuite and checked. Idempotent, silent when nothing is missing.
# Usage: deploy/libero_assets.sh [-q]     -q: no word when it cannot be done (exit status says it)
set -eu
cd "$(dirname "$0")/.."

list=$PWD/deploy/robosuite-1.4.0.sha256
quiet=
[ "${1:-}" = -q ] && quiet=1
say() { [ -n "$quiet" ] || echo "libero-assets: $*"; }

if ! { [ -d .deps/robosuite ] && (cd .deps/robosuite && sha256sum --quiet -c "$list") >/dev/null 2>&1; }; then
    mkdir -p .deps
    tmp=$(mktemp -d .deps/robosuite.XXXXXX)
    trap 'rm -rf "$tmp"' EXIT
    say "fetching robosuite 1.4.0 (wheel from PyPI, 190 MB)"
    if ! timeout 600 python3 -m pip download -q --disable-pip-version-check --no-deps -d "$tmp" robosuite==1.4.0 2>"$tmp/log"; then
        [ -n "$quiet" ] || { cat "$tmp/log" >&2; echo "libero-assets: the wheel could not be fetched; any robosuite 1.4.x installation will do: export ROBOSUITE_ROOT=DIR" >&2; }
        exit 1
    fi
    awk '{ print $2 }' "$list" | tr '\n' '\0' | xargs -0 unzip -q -o "$tmp"/robosuite-*.whl -d "$tmp/files"
    (cd "$tmp/files" && sha256sum --quiet -c "$list")
    rm -rf .deps/robosuite
    mv "$tmp/files" .deps/robosuite
fi
say "robosuite's files are in .deps/robosuite (found there by itself from this folder; elsewhere: export ROBOSUITE_ROOT=$PWD/.deps/robosuite)"
[ -n "${LIBERO_ROOT:-}" ] || say "LIBERO's own: git clone https://github.com/Lifelong-Robot-Learning/LIBERO && export LIBERO_ROOT=\$PWD/LIBERO"
