#!/bin/bash
# bundle.sh - gpu-check for a machine that has a GPU and nothing to build with: programs, the libraries they link, models and reference numbers in one
# archive of some 30 MB, to be unpacked anywhere.
#
#   tests/gpu/bundle.sh [ARCHIVE]       default build/gpu-bundle.tar.xz, after `make -s gpu-check` (which builds, and says that here is no GPU)
#   there: tar xf ARCHIVE && gpu-bundle/run.sh [REPORT]       (or python3 -m tarfile -e ARCHIVE, where xz is missing)
#          gpu-bundle/beside_torch.sh [REPORT]                 acting and learning beside PyTorch, if it is there
#
# Linked against this machine's libc: the other's must not be older. Of the libraries glibc's own and the driver's stay out; cuBLASLt, cuDNN and NCCL are looked
# for there (check.sh). $GANTRY_GOLDENS: the reference numbers, if they are to come along.
set -eu
cd "$(dirname "$0")/../.."
archive=$(realpath "${1:-build/gpu-bundle.tar.xz}") work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
to=$work/gpu-bundle
mkdir -p "$to/lib" "$to/bin" "$to/tests/gpu" "$to/build/release/tests/nn" "$to/build/release/tests/bench"

programs="bin/gantry build/release/tests/bench/bench_gpu build/release/tests/bench/bench_gpu_models"
for source in tests/nn/test_device*.c; do programs="$programs build/release/${source%.c}"; done
for program in $programs; do
    [ -x "$program" ] || { echo "bundle: $program is not built: make -s gpu-check" >&2; exit 1; }
    strip --strip-debug -o "$to/$program" "$program"
done
# shellcheck disable=SC2086
ldd $programs | awk '/=> \// { print $3 }' | sort -u | while read -r library; do
    case $(basename "$library") in
        libc.so* | libm.so* | libdl.so* | librt.so* | libpthread.so* | libresolv.so* | libcuda.so*) ;;
        *) cp -L "$library" "$to/lib/" ;;
    esac
done
mkdir -p "$to/tests/golden"
cp -r models "$to/"
cp -r tests/golden/nano "$to/tests/golden/"
cp tests/gpu/{check,beside_torch,libraries}.sh "$to/tests/gpu/"
mkdir -p "$to/tests/bench"
cp tests/bench/torch_gpu.py "$to/tests/bench/"
if [ -n "${GANTRY_GOLDENS:-}" ]; then
    mkdir -p "$to/goldens/openvla"
    cp -r "$GANTRY_GOLDENS/openvla/tiny64" "$to/goldens/openvla/"
fi
git describe --always --dirty >"$to/version" 2>/dev/null || true
cat >"$to/run.sh" <<'RUN'
#!/bin/bash
export GPU_BUNDLE_BEFORE=${LD_LIBRARY_PATH:-}          # for programs of that machine
here=$(cd "$(dirname "$0")" && pwd)
known=$(PATH=$PATH:/usr/sbin:/sbin ldconfig -p)
for library in "$here"/lib/*; do [[ $known == *$'\t'"${library##*/} ("* ]] && rm "$library"; done     # the system's own fits the system's others
export LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
[ -d "$here/goldens" ] && export GANTRY_GOLDENS=$here/goldens
vendor=/usr/local/nvidia/share/glvnd/egl_vendor.d/10_nvidia.json        # where containers are given the driver: libEGL does not look there
[ -e $vendor ] && export __EGL_VENDOR_LIBRARY_FILENAMES=${__EGL_VENDOR_LIBRARY_FILENAMES:-$vendor}
exec "$here/tests/gpu/check.sh" ${1:+"$(realpath "$1")"}
RUN
sed 's#/check\.sh"#/beside_torch.sh"#' "$to/run.sh" >"$to/beside_torch.sh"
chmod +x "$to"/*.sh
# programs are alike but for what they test: a dictionary that reaches from one to the next
tar -C "$work" --sort=name -cf - gpu-bundle | xz -T1 --lzma2=preset=2,dict=96MiB >"$archive"
ls -l "$archive" | awk '{ printf "%s: %.1f MB\n", $NF, $5 / 1e6 }'
