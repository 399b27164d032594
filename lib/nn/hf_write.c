/* hf_write.c - weights into one file or shards, divided as save_pretrained divides them, with their index. */
#include <errno.h>
#include <stdio.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "nn/hf.h"

static const int64_t default_shard_bytes = 5000000000;

/* A new shard begins when the next tensor would not fit any more. */
static int divide(const struct st_write *tensors, int n, int64_t shard_bytes, int *ret_shard)
{
    int64_t bytes = 0;
    int shard = 0;

    for (int i = 0; i < n; i++) {
        int64_t more = (int64_t)st_write_bytes(&tensors[i]);

        if (bytes > 0 && bytes + more > shard_bytes) {
            shard++;
            bytes = 0;
        }
        bytes += more;
        ret_shard[i] = shard;
    }
    return shard + 1;
}

static void shard_name(char *ret, size_t size, int shard, int shards)
{
    if (shards == 1)
        snprintf(ret, size, "model.safetensors");
    else
        snprintf(ret, size, "model-%05d-of-%05d.safetensors", shard + 1, shards);
}

/* As Python's json.dumps(index, indent=2, sort_keys=True) writes it: the same weights give the same bytes. */
static int write_index(const char *dir, const struct st_write *tensors, int n, const int *shard, int shards, struct error *error)
{
    _cleanup_json_ json_t *map = json_object(), *index = NULL;
    _cleanup_free_ char *text = NULL;
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT, out = STRBUF_INIT;
    int64_t total = 0;
    int r;

    for (int i = 0; i < n; i++) {
        char name[64];

        shard_name(name, sizeof(name), shard[i], shards);
        json_object_set_new(map, tensors[i].name, json_string(name));
        total += (int64_t)st_write_bytes(&tensors[i]);
    }
    index = json_pack("{s:{s:I},s:O}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    text = index && json_object_size(map) == (size_t)n ? json_dumps(index, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    if (text)
        strbuf_addf(&out, "%s\n", text);
    strbuf_addf(&path, "%s/model.safetensors.index.json", dir);
    r = !text || out.failed || path.failed ? -ENOMEM : file_write(path.text, out.text, out.length);
    return r < 0 ? error_set(error, -r, "%s: %s", path.text, strerror(-r)) : 0;
}

int hf_weights_write(const char *dir, const struct st_write *tensors, int n, int64_t shard_bytes, const int *shard,
                     struct error *error)
{
    _cleanup_free_ int *by_size = calloc((size_t)n + 1, sizeof(*by_size));
    bool as_given = shard != NULL;
    int shards, r;

    if (!by_size)
        return error_set(error, ENOMEM, "out of memory");
    if (as_given)
        shards = n ? shard[n - 1] + 1 : 1;
    else
        shards = divide(tensors, n, shard_bytes > 0 ? shard_bytes : default_shard_bytes, by_size);
    shard = as_given ? shard : by_size;
    for (int begin = 0, end; begin < n; begin = end) {
        _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
        char name[64];

        for (end = begin; end < n && shard[end] == shard[begin];)
            end++;
        shard_name(name, sizeof(name), shard[begin], shards);
        strbuf_addf(&path, "%s/%s", dir, name);
        if (path.failed)
            return error_set(error, ENOMEM, "out of memory");
        r = as_given ? safetensors_write_as_given(path.text, tensors + begin, end - begin, error) :
                       safetensors_write(path.text, tensors + begin, end - begin, error);
        if (r < 0)
            return r;
    }
    return shards > 1 ? write_index(dir, tensors, n, shard, shards, error) : 0;
}
