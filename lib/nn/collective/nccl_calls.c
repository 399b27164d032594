#include "nn/collective/nccl_calls.h"

#include <dlfcn.h>
#include <errno.h>

int nccl_calls_open(const char *path, struct nccl_calls *ret, struct error *error)
{
    const char *name = path ? path : "libnccl.so.2";
    struct nccl_calls calls;
    const struct { const char *name; void **to; } symbols[] = {
        {"ncclGetVersion", (void **)&calls.get_version},
        {"ncclGetUniqueId", (void **)&calls.get_unique_id},
        {"ncclCommInitRankConfig", (void **)&calls.comm_init_rank_config},
        {"ncclCommGetAsyncError", (void **)&calls.comm_get_async_error},
        {"ncclCommAbort", (void **)&calls.comm_abort},
        {"ncclCommFinalize", (void **)&calls.comm_finalize},
        {"ncclCommDestroy", (void **)&calls.comm_destroy},
        {"ncclAllReduce", (void **)&calls.all_reduce},
        {"ncclAllGather", (void **)&calls.all_gather},
        {"ncclGetErrorString", (void **)&calls.get_error_string},
    };
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    int version = 0;

    if (!library)
        return error_set(error, ENOENT, "%s cannot be opened (%s): learners on several GPUs need NCCL 2.17 or later; "
                         "install libnccl2, or put its folder into LD_LIBRARY_PATH", name, dlerror());
    for (size_t i = 0; i < ARRAY_SIZE(symbols); i++) {
        *symbols[i].to = dlsym(library, symbols[i].name);
        if (!*symbols[i].to) {
            dlclose(library);
            return error_set(error, ENOSYS, "%s has no function %s: NCCL 2.17 or later is needed", name, symbols[i].name);
        }
    }
    if (calls.get_version(&version) != NCCL_SUCCESS || version < (int)NCCL_CONFIG_VERSION) {
        dlclose(library);
        return error_set(error, ENOSYS, "%s is NCCL version %d; 21700 (2.17.0) or later is needed", name, version);
    }
    *ret = calls;
    return 0;
}
