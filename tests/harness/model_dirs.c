#include "tests/harness/model_dirs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "nn/hf_convert.h"
#include "nn/models/openvla_synth.h"

struct model_dirs model_dirs;

int model_dirs_set_up(void **state)
{
    struct openvla_synthesis done;
    struct error error = {0};

    (void)state;
    scratch_new(model_dirs.root);
    snprintf(model_dirs.good, sizeof(model_dirs.good), "%s/good", model_dirs.root);
    if (mkdir(model_dirs.good, 0755) < 0 || openvla_synth(openvla_size_find("tiny"), model_dirs.good, DTYPE_BF16, 3, 300000,
                                                          &done, &error) < 0) {
        print_error("%s\n", error.text);
        return -1;
    }
    return 0;
}

int model_dirs_tear_down(void **state)
{
    (void)state;
    return remove_tree(model_dirs.root);
}

char *model_dirs_path(const char *dir, const char *name)
{
    static char path[2][256];
    static int turn;

    turn = !turn;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
    return path[turn];
}

void model_dirs_read(const char *path, char **ret, size_t *ret_n)
{
    if (file_read(path, 64 << 20, ret, ret_n) < 0)
        fail_msg("%s cannot be read", path);
}

void model_dirs_write(const char *path, const void *bytes, size_t n)
{
    if (atomic_file_write(path, bytes, n) < 0)
        fail_msg("%s cannot be written", path);
}

const char *model_dirs_copy(void)
{
    static char dir[SCRATCH_PATH + 8];
    struct hf_converted done;
    struct error error = {0};

    snprintf(dir, sizeof(dir), "%s/bad", model_dirs.root);
    (void)remove_tree(dir);
    if (mkdir(dir, 0755) < 0 || hf_convert(model_dirs.good, dir, &(struct hf_conversion) {0}, &done, &error) < 0)
        fail_msg("%s", error.text);
    return dir;
}
