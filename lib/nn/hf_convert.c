#include "nn/hf_convert.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>

#include "base/strbuf.h"
#include "nn/torch_file.h"

static int widen(void *context, int64_t first, int64_t n, float *ret)
{
    return st_read_f32(context, first, n, ret);
}

/* how NULL: as it is. */
static struct st_write describe(const struct st_tensor *tensor, const struct hf_conversion *how)
{
    struct st_write to = {.name = tensor->name, .dtype = tensor->dtype, .ndim = tensor->ndim, .raw = tensor->data};

    memcpy(to.dim, tensor->dim, sizeof(tensor->dim));
    if (how && how->change_dtype && dtype_is_weight(tensor->dtype) && tensor->dtype != how->dtype) {
        to.dtype = how->dtype;
        to.raw = NULL;
        to.fill = widen;
        to.context = (void *)(uintptr_t)tensor;
    }
    return to;
}

static int convert_weights(const struct hf_shards *shards, const char *to, const struct hf_conversion *how,
                           struct hf_converted *ret, struct error *error)
{
    _cleanup_free_ struct st_write *list = NULL;
    _cleanup_free_ int *shard = NULL;
    int n = 0, total = 0;

    for (int s = 0; s < shards->n; s++)
        total += shards->file[s]->count;
    list = calloc((size_t)total + 1, sizeof(*list));
    shard = calloc((size_t)total + 1, sizeof(*shard));
    if (!list || !shard)
        return error_set(error, ENOMEM, "out of memory");
    for (int s = 0; s < shards->n; s++)
        for (int i = 0; i < shards->file[s]->count; i++) {
            list[n] = describe(&shards->file[s]->list[i], how);
            ret->bytes += (int64_t)st_write_bytes(&list[n]);
            shard[n++] = s;
        }
    ret->tensors = n;
    return hf_weights_write(to, list, n, how->shard_bytes, how->change_dtype || how->shard_bytes ? NULL : shard, error);
}

/* ---- what lies beside the shards ------------------------------------------------------------------------- */

static int write_tensors(const struct st_tensor *tensors, int n, const struct hf_conversion *how, const char *path, bool as_given,
                         struct error *error)
{
    _cleanup_free_ struct st_write *list = calloc((size_t)n + 1, sizeof(*list));

    if (!list)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < n; i++)
        list[i] = describe(&tensors[i], how);
    return as_given ? safetensors_write_as_given(path, list, n, error) : safetensors_write(path, list, n, error);
}

static int convert_torch(const char *from, const struct hf_conversion *how, const char *to, int *ret_tensors, struct error *error)
{
    _cleanup_(torch_file_closep) struct torch_file *file = NULL;
    const struct st_tensor *tensors;
    int n, r = torch_file_open(from, &file, error);

    if (r < 0)
        return r;
    tensors = torch_file_tensors(file, &n);
    r = write_tensors(tensors, n, how, to, false, error);
    if (r >= 0 && ret_tensors)
        *ret_tensors = n;
    return r;
}

static bool ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);

    return n > m && !strcmp(text + n - m, suffix);
}

/* "action_head--150000_checkpoint.pt" -> "action_head.safetensors"; a step has no place in a name that configurations use. */
static void torch_name(const char *name, struct strbuf *ret)
{
    const char *step = strstr(name, "--");
    size_t n = strlen(name) - 3;

    if (step && step > name && ends_with(name, "_checkpoint.pt"))
        n = (size_t)(step - name);
    strbuf_addf(ret, "%.*s.safetensors", (int)n, name);
}

/* They are fp32 wherever they learn, also on a trunk of bf16. */
static bool keeps_dtype(const char *name)
{
    return !strcmp(name, "value_head.safetensors") || !strcmp(name, "reward_head.safetensors");
}

static int convert_side_file(const char *from, const char *to, const char *name, const struct hf_conversion *how, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf source = STRBUF_INIT, target = STRBUF_INIT, target_name = STRBUF_INIT;
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    bool torch = ends_with(name, ".pt");
    int r;

    if (torch)
        torch_name(name, &target_name);
    else
        strbuf_adds(&target_name, name);
    strbuf_addf(&source, "%s/%s", from, name);
    strbuf_addf(&target, "%s/%s", to, target_name.text);
    if (source.failed || target.failed || target_name.failed)
        return error_set(error, ENOMEM, "out of memory");
    if (access(target.text, F_OK) == 0)
        return error_set(error, EEXIST,
                         "%s: would become %s, which another file of the directory is or becomes; keep one of them", source.text,
                         target_name.text);
    if (torch)
        return convert_torch(source.text, how, target.text, NULL, error);
    r = safetensors_open(source.text, &file, error);
    return r < 0 ? r : write_tensors(file->list, file->count, keeps_dtype(name) ? NULL : how, target.text, true, error);
}

/* Not a shard, whatever the index calls it, nor one that the index has left behind. */
static bool is_side_file(const struct hf_shards *shards, const char *name)
{
    for (int i = 0; i < shards->n; i++)
        if (!strcmp(strrchr(shards->file[i]->path, '/') + 1, name))
            return false;
    if (!strncmp(name, "model-", 6) || !strcmp(name, "model.safetensors"))
        return false;
    return ends_with(name, ".safetensors") || ends_with(name, ".pt");
}

static int convert_side_files(const struct hf_shards *shards, const char *from, const char *to, const struct hf_conversion *how,
                              struct hf_converted *ret, struct error *error)
{
    struct dirent **entries;
    int n = scandir(from, &entries, NULL, alphasort), r = 0;

    if (n < 0)
        return error_set(error, errno, "%s: %s", from, strerror(errno));
    for (int i = 0; i < n; i++) {
        if (r >= 0 && is_side_file(shards, entries[i]->d_name)) {
            r = convert_side_file(from, to, entries[i]->d_name, how, error);
            ret->side_files++;
        }
        free(entries[i]);
    }
    free(entries);
    return r;
}

int hf_convert(const char *from, const char *to, const struct hf_conversion *how, struct hf_converted *ret, struct error *error)
{
    _cleanup_(hf_files_release) struct hf_files files = {0};
    _cleanup_(hf_shards_close) struct hf_shards shards = {0};
    struct hf_converted done = {0};
    int r = hf_files_read(from, &files, error);

    if (r >= 0)
        r = hf_shards_open(from, &shards, error);
    if (r >= 0)
        r = convert_weights(&shards, to, how, &done, error);
    if (r >= 0)
        r = convert_side_files(&shards, from, to, how, &done, error);
    if (r >= 0)
        r = hf_files_write(&files, to, how->change_dtype ? dtype_torch_name(how->dtype) : NULL, error);
    if (r < 0)
        return r;
    *ret = done;
    return 0;
}

int hf_convert_torch(const char *from, const char *to, int *ret_tensors, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf temporary = STRBUF_INIT;
    int r;

    strbuf_addf(&temporary, "%s.tmp.%d", to, (int)getpid());
    if (temporary.failed)
        return error_set(error, ENOMEM, "out of memory");
    r = convert_torch(from, NULL, temporary.text, ret_tensors, error);
    if (r >= 0 && rename(temporary.text, to) < 0)
        r = error_set(error, errno, "%s: %s", to, strerror(errno));
    if (r < 0)
        (void)unlink(temporary.text);
    return r;
}
