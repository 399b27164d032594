# libraries.sh - sourced: where the GPU's libraries lie that gantry opens when it needs them.
# shellcheck shell=bash
# find_library NAME: where the linker does not know it, its folder becomes one of LD_LIBRARY_PATH: a container's driver, a toolkit's,
# or a Python's (PyTorch brings all but the driver). Says which, by say().
folders() {
    tr : '\n' <<<"${LD_LIBRARY_PATH:-}"
    ls -d /usr/local/nvidia/lib64 /usr/local/cuda*/lib64
    python3 -c 'import glob, sys; print(*(folder for path in sys.path for folder in glob.glob(path + "/nvidia/*/lib")), sep="\n")'
} 2>/dev/null
find_library() {
    local folder
    PATH=$PATH:/usr/sbin:/sbin ldconfig -p 2>/dev/null | grep -qF "$1 (" && { say "library $1: the system's"; return; }
    while read -r folder; do
        [ -n "$folder" ] && [ -e "$folder/$1" ] || continue
        [[ ":${LD_LIBRARY_PATH:-}:" == *":$folder:"* ]] || export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
        say "library $1: $folder"
        return
    done < <(folders)
    say "library $1: NOT FOUND; what it would do is left out, or slower than what is to be measured"
}
find_libraries() {
    local library
    for library in libcuda.so.1 libcublasLt.so.13 libcudnn.so.9 libnvrtc.so.13 libnccl.so.2; do find_library $library; done
}
