#!/bin/sh
# setup.sh - install what gantry needs to build, run and test on Debian 12 and 13 or Ubuntu 24.04.
#
# Idempotent, and silent when nothing is missing. Packages come from apt, MuJoCo 3.3.2 from its PyPI
# wheel (library and headers are inside) into .deps/, unless MUJOCO_DIR names an installation.
# Usage: deploy/setup.sh [build|test|cluster]     test adds what only the tests need; cluster also a Slurm, systemd-nspawn and ip, for the
#   tests of job scripts and units: apart, because Slurm's and munge's packages start services on the machine they are installed on
set -eu
cd "$(dirname "$0")/.."

want="gcc g++ make pkg-config curl unzip python3 python3-pip
 libzmq3-dev libprotobuf-c-dev protobuf-c-compiler libuv1-dev libyaml-dev libjansson-dev
 libsqlite3-dev libpng-dev libturbojpeg0-dev libzstd-dev zlib1g-dev libpcre2-dev libhdf5-dev uthash-dev libopenblas-dev
 libegl-dev libgl-dev libegl1 libegl-mesa0 libgl1-mesa-dri libjs-chart.js"
[ "${1:-build}" = cluster ] && set -- test "slurm-wlm munge systemd-container dbus iproute2"
[ "${1:-build}" = test ] && want="$want ${2:-}" && want="$want libcmocka-dev python3-pytest python3-pytest-xdist clang clang-tidy clang-format libclang-rt-14-dev"

release=$(. /etc/os-release 2>/dev/null && echo "${ID:-?}${VERSION_ID:-}")
case "$release" in
    debian12*) ;;
    *) want=$(echo "$want" | sed 's/libclang-rt-14-dev/libclang-rt-dev/') ;;
esac

missing=
for package in $want; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "setup: installing$missing"
    sudo=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "setup: need root to install:$missing" >&2; exit 1; }
        sudo=sudo
    fi
    $sudo apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

version=3.3.2
if [ -z "${MUJOCO_DIR:-}" ] && [ ! -e ".deps/mujoco-$version/libmujoco.so.$version" ]; then
    echo "setup: fetching MuJoCo $version (wheel from PyPI)"
    tmp=$(mktemp -d)
    trap 'rm -rf "$tmp"' EXIT
    python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
        --python-version 3.11 --platform "manylinux2014_$(uname -m)" -d "$tmp" "mujoco==$version"
    unzip -q "$tmp"/mujoco-*.whl 'mujoco/include/*' "mujoco/libmujoco.so.$version" -d "$tmp"
    mkdir -p .deps
    rm -rf ".deps/mujoco-$version"
    mv "$tmp/mujoco" ".deps/mujoco-$version"
    ln -sf "libmujoco.so.$version" ".deps/mujoco-$version/libmujoco.so"
fi
