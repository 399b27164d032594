#include "sim/suites/libero/init_states.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/pickle.h"
#include "base/zip.h"

enum { MAX_PICKLE = 64 << 20, MAX_ROWS = 100000 };
enum { RECONSTRUCT, NDARRAY, DTYPE, ENCODE };

static int allow(const char *module, const char *name)
{
    static const struct { const char *module, *name; int tag; } names[] = {
        { "numpy.core.multiarray", "_reconstruct", RECONSTRUCT }, { "numpy._core.multiarray", "_reconstruct", RECONSTRUCT },
        { "numpy", "ndarray", NDARRAY }, { "numpy", "dtype", DTYPE }, { "_codecs", "encode", ENCODE },
    };

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (strcmp(names[i].module, module) == 0 && strcmp(names[i].name, name) == 0)
            return names[i].tag;
    return -EPERM;
}

/* dtype('f8') with state (3, '<', ...): little-endian doubles. */
static bool is_double(const struct pickle_value *dtype)
{
    const struct pickle_value *state = dtype->state;

    return dtype->kind == PICKLE_CALL && dtype->tag == DTYPE && dtype->call.arguments->count >= 1 &&
           pickle_is_text(dtype->call.arguments->items[0], "f8") && state && state->kind == PICKLE_TUPLE && state->count >= 2 &&
           pickle_is_text(state->items[1], "<");
}

/* State of numpy's ndarray: (version, shape, dtype, Fortran order, bytes). */
static int read_array(const struct pickle_value *array, const char *path, int width, struct init_states *ret, struct error *error)
{
    const struct pickle_value *state = array->state, *shape;
    _cleanup_free_ uint8_t *bytes = NULL;
    int64_t rows, columns;
    size_t n;

    if (array->kind != PICKLE_CALL || array->tag != RECONSTRUCT || !state || state->kind != PICKLE_TUPLE || state->count != 5)
        return error_set(error, EINVAL, "%s: a numpy array was expected in it", path);
    shape = state->items[1];
    if (shape->kind != PICKLE_TUPLE || shape->count != 2 || shape->items[0]->kind != PICKLE_INT ||
        shape->items[1]->kind != PICKLE_INT)
        return error_set(error, EINVAL, "%s: an array of two dimensions was expected", path);
    rows = shape->items[0]->integer;
    columns = shape->items[1]->integer;
    if (!is_double(state->items[2]) || state->items[3]->kind != PICKLE_BOOL || state->items[3]->boolean)
        return error_set(error, EINVAL, "%s: little-endian float64 in C order was expected", path);
    if (columns != width)
        return error_set(error, EINVAL,
                         "%s: rows of %lld numbers; this task's model needs %d (1 + nq + nv): the file belongs to another "
                         "task or version of LIBERO",
                         path, (long long)columns, width);
    if (rows < 1 || rows > MAX_ROWS)
        return error_set(error, EINVAL, "%s: %lld rows", path, (long long)rows);
    if (pickle_bytes(state->items[4], &bytes, &n) < 0 || n != (size_t)rows * (size_t)columns * sizeof(double))
        return error_set(error, EINVAL, "%s: the array's bytes do not fill its shape (%lld, %lld)", path, (long long)rows,
                         (long long)columns);
    *ret = (struct init_states) { .rows = (int)rows, .width = (int)columns, .values = (double *)(void *)TAKE_PTR(bytes) };
    return 0;
}

int init_states_read(const char *path, int width, struct init_states *ret, struct error *error)
{
    _cleanup_(zip_closep) struct zip_archive *archive = NULL;
    _cleanup_(pickle_freep) struct pickle *pickle = NULL;
    _cleanup_free_ void *memory = NULL;
    _cleanup_free_ char *source = NULL;
    const struct zip_entry *entry = NULL;
    struct init_states states;
    const uint8_t *bytes;
    size_t n;
    int r = zip_open(path, &archive, error);

    if (r < 0)
        return r;
    for (int i = 0; i < archive->count && !entry; i++) {
        const char *slash = strrchr(archive->entries[i].name, '/');

        if (strcmp(slash ? slash + 1 : archive->entries[i].name, "data.pkl") == 0)
            entry = &archive->entries[i];
    }
    if (!entry)
        return error_set(error, EINVAL, "%s: there is no data.pkl in it", path);
    r = zip_read(archive, entry, MAX_PICKLE, &bytes, &n, &memory, error);
    if (r < 0)
        return r;
    if (asprintf(&source, "%s: %s", path, entry->name) < 0) {
        source = NULL;
        return error_set(error, ENOMEM, "%s: out of memory", path);
    }
    r = pickle_parse(bytes, n, source, allow, &pickle, error);
    if (r == 0)
        r = read_array(pickle_root(pickle), path, width, &states, error);
    if (r < 0)
        return r;
    for (int i = 0; i < states.rows * states.width; i++)
        if (!isfinite(states.values[i])) {
            init_states_release(&states);
            return error_set(error, EINVAL, "%s: row %d, column %d is not a finite number", path, i / width, i % width);
        }
    *ret = states;
    return 0;
}

void init_states_release(struct init_states *states)
{
    free(states->values);
    *states = (struct init_states) {0};
}
