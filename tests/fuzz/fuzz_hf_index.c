/* A model.safetensors.index.json from anyone, beside two sound shards: what is accepted must lead to every tensor it names. */
#include <fcntl.h>
#include <stdio.h>

#include "base/atomic_file.h"
#include "nn/hf.h"
#include "tests/harness/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static char dir[SCRATCH_PATH];

static void clean_up(void) { (void)remove_tree(dir); }

static void set_up(void)
{
    static const uint8_t raw[4];
    char path[SCRATCH_PATH + 32];

    scratch_new(dir);
    atexit(clean_up);
    for (int i = 0; i < 2; i++) {
        struct st_write tensor = {.name = i ? "b" : "a", .dtype = DTYPE_U8, .ndim = 1, .dim = {4}, .raw = raw};

        snprintf(path, sizeof(path), "%s/%s.safetensors", dir, tensor.name);
        if (safetensors_write(path, &tensor, 1, NULL) < 0)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static bool ready;
    struct hf_shards shards = {0};
    struct error error;
    char path[SCRATCH_PATH + 32];
    int fd;

    if (!ready)
        set_up();
    ready = true;
    snprintf(path, sizeof(path), "%s/model.safetensors.index.json", dir);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n)
        abort();
    close(fd);
    if (hf_shards_open(dir, &shards, &error) < 0)
        return 0;
    for (int i = 0; i < shards.n; i++)
        if (hf_shards_find(&shards, shards.file[i]->list[0].name) != &shards.file[i]->list[0])
            abort();
    hf_shards_close(&shards);
    return 0;
}
