/* A file of demonstrations from anyone. libhdf5 parses the bytes; what is ours is to believe nothing that it says of them. So the
 * input is not a file: it says what a file holds (ranks, sizes, types, links, attributes), libhdf5 writes that, and the import
 * reads it. What is imported can be read to its last byte, and comes from this file alone. */
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic_file.h"
#include "data/source.h"
#include "tests/harness/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

struct input { const uint8_t *at, *end; };

static uint8_t take(struct input *in) { return in->at < in->end ? *in->at++ : 0; }

static char dir[SCRATCH_PATH], own[SCRATCH_PATH + 16], other[SCRATCH_PATH + 16];
static haddr_t other_at;        /* where in it its numbers are */

/* ---- a file as the input says -------------------------------------------------------------------------------------- */

static hid_t number_type(uint8_t which)
{
    const hid_t types[] = {H5T_NATIVE_DOUBLE, H5T_NATIVE_UINT8, H5T_NATIVE_FLOAT, H5T_NATIVE_INT64, H5T_NATIVE_USHORT};

    return types[which % ARRAY_SIZE(types)];
}

/* As LIBERO has it, T steps; the last is the dimension that the import asks about. */
static int usual_shape(const char *name, hsize_t steps, hsize_t *ret)
{
    bool picture = strstr(name, "rgb") != NULL;

    ret[0] = steps;
    ret[1] = picture ? 4 : !strcmp(name, "actions") ? 7 : strstr(name, "ee_") ? 6 : 2;
    ret[2] = 4;
    ret[3] = 3;
    return picture ? 4 : !strcmp(name, "rewards") || !strcmp(name, "dones") ? 1 : 2;
}

static void put_dataset(struct input *in, hid_t group, const char *name, int rank, hsize_t *shape, hid_t type, hid_t creation,
                        bool written)
{
    hid_t space = H5Screate_simple(rank, shape, NULL);
    hid_t id = H5Dcreate2(group, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    hsize_t numbers = 1;
    uint8_t *values;

    for (int i = 0; i < rank; i++)
        numbers *= shape[i];
    values = id >= 0 && written && numbers <= 1 << 16 ? calloc((size_t)numbers + 1, 8) : NULL;
    if (values) {
        for (size_t i = 0; i < 16 && i < (size_t)numbers * H5Tget_size(type); i++)
            values[i] = take(in);
        H5Dwrite(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    }
    free(values);
    if (id >= 0)
        H5Dclose(id);
    H5Sclose(space);
}

/* Other files: as raw data, as parts of a whole, behind a link. */
static void put_foreign(struct input *in, hid_t group, const char *name, int rank, hsize_t *shape, uint8_t how)
{
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE), space;

    if (how == 0) {
        H5Lcreate_external(other, "/x", group, name, H5P_DEFAULT, H5P_DEFAULT);
    } else if (how == 1) {
        H5Pset_external(creation, other, (off_t)other_at, H5F_UNLIMITED);
        put_dataset(in, group, name, rank, shape, H5T_NATIVE_UINT8, creation, false);
    } else {
        space = H5Screate_simple(rank, shape, NULL);
        H5Pset_virtual(creation, space, other, "/x", space);
        put_dataset(in, group, name, rank, shape, H5T_NATIVE_UINT8, creation, false);
        H5Sclose(space);
    }
    H5Pclose(creation);
}

static void put_field(struct input *in, hid_t demo, const char *name, hsize_t steps)
{
    hsize_t shape[9], chunk[9];
    int rank = usual_shape(name, steps, shape);
    uint8_t kind = take(in);
    hid_t creation, id;

    switch (kind % 12) {
    case 0:
    case 1:
        put_dataset(in, demo, name, rank, shape, strstr(name, "rgb") ? H5T_NATIVE_UINT8 : H5T_NATIVE_DOUBLE, H5P_DEFAULT, true);
        break;
    case 2:                     /* another type */
        put_dataset(in, demo, name, rank, shape, number_type(take(in)), H5P_DEFAULT, true);
        break;
    case 3:                     /* one size is another */
        shape[take(in) % rank] = take(in);
        put_dataset(in, demo, name, rank, shape, H5T_NATIVE_UINT8, H5P_DEFAULT, true);
        break;
    case 4:                     /* another rank */
        rank = take(in) % 10;
        for (int i = 0; i < rank; i++)
            shape[i] = 1 + take(in) % 4;
        put_dataset(in, demo, name, rank, shape, H5T_NATIVE_DOUBLE, H5P_DEFAULT, true);
        break;
    case 5:                     /* huge, and never written */
        creation = H5Pcreate(H5P_DATASET_CREATE);
        shape[take(in) % rank] <<= take(in) % 40;
        for (int i = 0; i < rank; i++)
            chunk[i] = 1;
        H5Pset_chunk(creation, rank, chunk);
        put_dataset(in, demo, name, rank, shape, H5T_NATIVE_UINT8, creation, false);
        H5Pclose(creation);
        break;
    case 6:
        id = H5Gcreate2(demo, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        H5Gclose(id);
        break;
    case 7:                     /* a link to nowhere, to itself, to the file's beginning */
        H5Lcreate_soft((const char *[]){"nowhere", name, "/"}[take(in) % 3], demo, name, H5P_DEFAULT, H5P_DEFAULT);
        break;
    case 8:
        put_foreign(in, demo, name, rank, shape, take(in) % 3);
        break;
    case 9: {                   /* texts, fixed or not */
        hid_t text = H5Tcopy(H5T_C_S1);

        H5Tset_size(text, take(in) % 2 ? H5T_VARIABLE : 5);
        put_dataset(in, demo, name, rank, shape, text, H5P_DEFAULT, false);
        H5Tclose(text);
        break;
    }
    case 10: {                  /* nothing at all */
        hid_t space = H5Screate(take(in) % 2 ? H5S_NULL : H5S_SCALAR);

        id = H5Dcreate2(demo, name, H5T_NATIVE_DOUBLE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        H5Dclose(id);
        H5Sclose(space);
        break;
    }
    default:                    /* missing */
        break;
    }
}

static void put_instruction(struct input *in, hid_t data)
{
    static const char text[] = "{\"language_instruction\": \"pick up the bowl\"}";
    uint8_t kind = take(in);
    hsize_t many = 1 + take(in) % 8;
    hid_t space = kind & 8 ? H5Screate(kind & 16 ? H5S_NULL : H5S_SCALAR) : H5Screate_simple(1, &many, NULL);
    hid_t type = H5Tcopy(H5T_C_S1), id;
    const char *pointers[8];
    char fixed[8][sizeof text];

    for (int i = 0; i < 8; i++) {
        pointers[i] = text;
        memcpy(fixed[i], text, sizeof text);
        fixed[i][take(in) % sizeof text] ^= (char)(kind >> 5);
    }
    H5Tset_size(type, kind & 1 ? H5T_VARIABLE : sizeof text);
    if (kind & 2) {
        H5Tclose(type);
        type = H5Tcopy(H5T_NATIVE_INT64);
    }
    id = kind & 4 ? -1 : H5Acreate2(data, "problem_info", type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (id >= 0) {
        if (H5Sget_simple_extent_npoints(space) > 0)
            H5Awrite(id, type, kind & 1 && !(kind & 2) ? (const void *)pointers : fixed);
        H5Aclose(id);
    }
    H5Sclose(space);
    H5Tclose(type);
}

static void write_file(struct input *in)
{
    static const char *const fields[] = {"actions", "rewards", "dones", "obs/agentview_rgb", "obs/eye_in_hand_rgb",
                                         "obs/ee_states", "obs/gripper_states"};
    static const char *const names[] = {"demo_0", "demo_1", "demo_", "demo_-1", "demo_99999999999", "demo_1x", "demo_007"};
    hid_t file = H5Fcreate(own, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), data;
    int demos = take(in) % 4;

    if (file < 0)
        abort();
    data = H5Gcreate2(file, "data", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    put_instruction(in, data);
    for (int i = 0; i < demos; i++) {
        uint8_t name = take(in);
        hsize_t steps = take(in) % 17;
        hid_t demo = H5Gcreate2(data, names[name % ARRAY_SIZE(names)], H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), obs;

        if (demo < 0)
            continue;           /* there is one of that name */
        obs = H5Gcreate2(demo, "obs", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        for (size_t k = 0; k < ARRAY_SIZE(fields); k++)
            put_field(in, demo, fields[k], steps);
        H5Gclose(obs);
        H5Gclose(demo);
    }
    H5Gclose(data);
    H5Fclose(file);
}

/* A file that nobody asked to be read: its x holds what must not be seen. */
enum { SECRET = 0xAB };

static void write_other(void)
{
    hid_t file = H5Fcreate(other, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), space, id;
    hsize_t shape[4] = {16, 4, 4, 3};
    uint8_t values[16 * 4 * 4 * 3];

    memset(values, SECRET, sizeof values);
    space = H5Screate_simple(4, shape, NULL);
    id = H5Dcreate2(file, "x", H5T_NATIVE_UINT8, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(id, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    other_at = H5Dget_offset(id);
    H5Dclose(id);
    H5Sclose(space);
    H5Fclose(file);
}

/* ---- the import ------------------------------------------------------------------------------------------------------- */

static void read_all(const struct source_episode *e)
{
    static volatile double sink;
    int secrets = 0;

    if (e->steps == 0)          /* which the import leaves out */
        return;
    if (e->steps < 1 || e->dims < 1 || e->cameras != 2 || e->state_dims < 1)
        abort();
    for (int i = 0; i < e->steps * e->dims; i++)
        sink += e->action[i];
    for (int i = 0; i < e->steps * e->state_dims; i++)
        sink += e->state[i];
    for (int i = 0; i < e->steps * e->cameras; i++) {
        const struct image *picture = &e->pictures[i];

        for (size_t k = 0; k < (size_t)picture->height * (size_t)picture->width * 3; k++) {
            sink += picture->rgb[k];
            secrets = picture->rgb[k] == SECRET ? secrets + 1 : 0;
            if (secrets > 20)           /* the input itself writes 16 bytes at a time */
                abort();
        }
    }
    if (strlen(e->task) >= sizeof e->task || strlen(e->instruction) >= sizeof e->instruction)
        abort();
}

static void import(void)
{
    struct source_options options = {0};
    struct source_episode episode = {0};
    struct source *source = NULL;
    struct error error = {0};
    int r = source_open("libero-hdf5", own, &options, &source, &error);

    if (r < 0 && !error.text[0])
        abort();                /* no line was said */
    for (int i = 0; r == 0 && i < 8; i++) {
        int got = source_next(source, &episode, &error);

        if (got > 0)
            read_all(&episode);
        else if (got < 0 && !error.text[0])
            abort();
        source_episode_release(&episode);
        if (got <= 0)
            break;
    }
    source_close(source);
}

static void forget(void) { (void)remove_tree(dir); }

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct input in = {bytes, bytes + n};

    if (!own[0]) {
        scratch_new(dir);
        atexit(forget);
        snprintf(own, sizeof own, "%s/own.hdf5", dir);
        snprintf(other, sizeof other, "%s/other.hdf5", dir);
        H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
        write_other();
    }
    write_file(&in);
    import();
    return 0;
}
