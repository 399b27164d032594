/* check_model.c - a compiled model against a dump of the original's, field by field. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <mujoco/mjxmacro.h>
#include <string.h>

#include "base/zip.h"
#include "sim/suites/libero/check.h"

enum { MAX_DUMP = 256 << 20 };

struct comparison {
    const mjModel *model;
    struct check_result *result;
};

static void differ(struct comparison *c, const char *field, size_t i, const char *format, ...) _printf_(4, 5);

static void differ(struct comparison *c, const char *field, size_t i, const char *format, ...)
{
    char text[120];
    va_list args;

    if (c->result->wrong++)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    snprintf(c->result->where, sizeof(c->result->where), "model: %s[%zu] %s", field, i, text);
}

/* Equal to 1e-9, or equal to the nine digits that dumps are written with. */
static bool agrees(double mine, double wanted)
{
    char digits[40];

    if (fabs(mine - wanted) <= 1e-9 * fmax(fabs(mine), fabs(wanted)) + 1e-300)
        return true;
    snprintf(digits, sizeof(digits), "%.9g", mine);
    return strtod(digits, NULL) == wanted;
}

static void compare_number(struct comparison *c, const char *field, size_t i, double mine, const json_t *golden)
{
    const double wanted = json_number_value(golden);

    c->result->compared++;
    if (!json_is_number(golden) || !agrees(mine, wanted))
        differ(c, field, i, "is %.12g, expected %.12g", mine, wanted);
}

static void compare_text(struct comparison *c, const char *field, size_t i, const char *mine, const json_t *golden)
{
    const char *wanted = json_string_value(golden);

    c->result->compared++;
    if (mine && wanted ? strcmp(mine, wanted) != 0 : (mine && *mine) || wanted)
        differ(c, field, i, "is '%s', expected '%s'", mine ? mine : "", wanted ? wanted : "");
}

/* ---- arrays of mjModel by their names ------------------------------------------------------------------------- */

enum kind { KIND_int, KIND_mjtNum, KIND_float, KIND_mjtByte, KIND_char, KIND_uintptr_t, KIND_mjtSize, KIND_size_t };

struct field {
    const char *name;
    const void *values;
    enum kind kind;
    size_t rows, columns;
};

static double field_value(const struct field *f, size_t i)
{
    switch (f->kind) {
    case KIND_int: return ((const int *)f->values)[i];
    case KIND_mjtNum: return ((const mjtNum *)f->values)[i];
    case KIND_float: return (double)((const float *)f->values)[i];
    case KIND_mjtByte: return ((const mjtByte *)f->values)[i];
    default: return NAN;
    }
}

static bool find_field(const mjModel *m, const char *name, struct field *ret)
{
    MJMODEL_POINTERS_PREAMBLE(m)

#define X(type, array, nr, nc)                                                                                      \
    if (strcmp(#array, name) == 0) {                                                                                \
        *ret = (struct field) { #array, m->array, KIND_##type, (size_t)(m->nr), (size_t)(nc) };                     \
        return true;                                                                                                \
    }
    MJMODEL_POINTERS
#undef X
    return false;
}

/* golden: rows of columns, or a flat list. */
static void compare_field(struct comparison *c, const struct field *f, const json_t *golden)
{
    size_t i, flat = 0;
    json_t *row;

    json_array_foreach(golden, i, row) {
        size_t k, n = json_is_array(row) ? json_array_size(row) : 1;

        for (k = 0; k < n && flat < f->rows * f->columns; k++, flat++)
            compare_number(c, f->name, flat, field_value(f, flat), json_is_array(row) ? json_array_get(row, k) : row);
        flat += n - k;
    }
    if (flat != f->rows * f->columns)
        differ(c, f->name, flat, "has %zu numbers, expected %zu", f->rows * f->columns, flat);
}

/* ---- sections of the dump ----------------------------------------------------------------------------------------- */

static void compare_names(struct comparison *c, const char *section, mjtObj type, int n, const json_t *golden)
{
    if (json_array_size(golden) != (size_t)n)
        differ(c, section, 0, "has %d names, expected %zu", n, json_array_size(golden));
    for (int i = 0; i < n; i++)
        compare_text(c, section, (size_t)i, mj_id2name(c->model, type, i), json_array_get(golden, (size_t)i));
}

static void compare_geom_meshes(struct comparison *c, const json_t *golden)
{
    for (int i = 0; i < c->model->ngeom; i++) {
        const int mesh = c->model->geom_type[i] == mjGEOM_MESH ? c->model->geom_dataid[i] : -1;

        compare_text(c, "geom mesh", (size_t)i, mesh < 0 ? NULL : mj_id2name(c->model, mjOBJ_MESH, mesh),
                     json_array_get(golden, (size_t)i));
    }
}

/* First 16 hexadecimal digits of SHA-1 (FIPS 180-4), as the dumps have them. Not for security. */
static void sha1_short(const void *bytes, size_t n, char ret[17])
{
    uint32_t h[5] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0 }, w[80];
    const uint8_t *from = bytes;
    const uint64_t total = n;
    uint8_t tail[128] = {0};
    size_t tail_size = 0, done = 0;

    while (!tail_size || done < tail_size) {
        const uint8_t *block = from;

        if (n < 64 && !tail_size) {     /* what is left, a one, zeros, the length in bits */
            memcpy(tail, from, n);
            tail[n] = 0x80;
            tail_size = n < 56 ? 64 : 128;
            for (int i = 0; i < 8; i++)
                tail[tail_size - 1 - (size_t)i] = (uint8_t)(total * 8 >> 8 * i);
        }
        if (tail_size) {
            block = tail + done;
            done += 64;
        } else {
            from += 64;
            n -= 64;
        }
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
                   block[4 * i + 3];
        for (int i = 16; i < 80; i++) {
            const uint32_t x = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16];

            w[i] = x << 1 | x >> 31;
        }
        uint32_t a = h[0], b = h[1], cc = h[2], d = h[3], e = h[4];

        for (int i = 0; i < 80; i++) {
            const uint32_t f = i < 20 ? ((b & cc) | (~b & d)) + 0x5a827999 : i < 40 ? (b ^ cc ^ d) + 0x6ed9eba1 :
                               i < 60 ? ((b & cc) | (b & d) | (cc & d)) + 0x8f1bbcdc : (b ^ cc ^ d) + 0xca62c1d6;
            const uint32_t t = (a << 5 | a >> 27) + f + e + w[i];

            e = d;
            d = cc;
            cc = b << 30 | b >> 2;
            b = a;
            a = t;
        }
        h[0] += a, h[1] += b, h[2] += cc, h[3] += d, h[4] += e;
    }
    snprintf(ret, 17, "%08x%08x", h[0], h[1]);
}

static void compare_mesh_digests(struct comparison *c, const json_t *section)
{
    const mjModel *m = c->model;
    const json_t *vertices = json_object_get(section, "vert_sha1"), *faces = json_object_get(section, "face_sha1");
    char digest[17];

    for (int i = 0; i < m->nmesh; i++) {
        sha1_short(m->mesh_vert + 3 * m->mesh_vertadr[i], sizeof(float) * 3 * (size_t)m->mesh_vertnum[i], digest);
        compare_text(c, "mesh vertices", (size_t)i, digest, json_array_get(vertices, (size_t)i));
        sha1_short(m->mesh_face + 3 * m->mesh_faceadr[i], sizeof(int) * 3 * (size_t)m->mesh_facenum[i], digest);
        compare_text(c, "mesh faces", (size_t)i, digest, json_array_get(faces, (size_t)i));
    }
}

static size_t texture_bytes(const mjModel *m, int i)
{
    return (size_t)m->tex_width[i] * (size_t)m->tex_height[i] * (size_t)m->tex_nchannel[i];
}

static void compare_texture_digests(struct comparison *c, const json_t *golden)
{
    char digest[17];

    for (int i = 0; i < c->model->ntex; i++) {
        sha1_short(c->model->tex_data + c->model->tex_adr[i], texture_bytes(c->model, i), digest);
        compare_text(c, "texture", (size_t)i, digest, json_array_get(golden, (size_t)i));
    }
}

static void compare_sizes(struct comparison *c, const json_t *section)
{
    const mjModel *m = c->model;
    const json_t *golden;
    double textures = 0;

#define X(name)                                                                                  \
    golden = strcmp(#name, "ntexdata") == 0 ? NULL : json_object_get(section, #name);             \
    if (golden)                                                                                   \
        compare_number(c, #name, 0, (double)m->name, golden);
    MJMODEL_INTS
#undef X
    for (int i = 0; i < m->ntex; i++)   /* the model's own ntexdata spans the pictures of all tasks */
        textures += (double)texture_bytes(m, i);
    compare_number(c, "ntexdata", 0, textures, json_object_get(section, "ntexdata"));
}

static void compare_options(struct comparison *c, const json_t *section)
{
    const mjOption *o = &c->model->opt;

#define X(type, name)                    \
    if (json_object_get(section, #name)) \
        compare_number(c, #name, 0, (double)o->name, json_object_get(section, #name));
    MJOPTION_FLOATS
    MJOPTION_INTS
#undef X
#define X(name, n)                                                                                               \
    for (size_t i = 0; json_object_get(section, #name) && i < (size_t)(n); i++)                                   \
        compare_number(c, #name, i, o->name[i], json_array_get(json_object_get(section, #name), i));
    MJOPTION_VECTORS
#undef X
}

static void compare_rest(struct comparison *c, const json_t *dump)
{
    const json_t *stat = json_object_get(dump, "stat"), *vis = json_object_get(dump, "vis");
    const mjModel *m = c->model;
    const struct { const char *name; double value; const json_t *golden; } numbers[] = {
        { "meaninertia", m->stat.meaninertia, json_object_get(stat, "meaninertia") },
        { "meanmass", m->stat.meanmass, json_object_get(stat, "meanmass") },
        { "meansize", m->stat.meansize, json_object_get(stat, "meansize") },
        { "extent", m->stat.extent, json_object_get(stat, "extent") },
        { "znear", (double)m->vis.map.znear, json_object_get(vis, "znear") },
        { "zfar", (double)m->vis.map.zfar, json_object_get(vis, "zfar") },
        { "fovy", (double)m->vis.global.fovy, json_object_get(vis, "fovy") },
        { "offwidth", m->vis.global.offwidth, json_object_get(vis, "offwidth") },
        { "offheight", m->vis.global.offheight, json_object_get(vis, "offheight") },
        { "offsamples", m->vis.quality.offsamples, json_object_get(vis, "offsamples") },
        { "shadowsize", m->vis.quality.shadowsize, json_object_get(vis, "shadowsize") },
    };

    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        compare_number(c, numbers[i].name, 0, numbers[i].value, numbers[i].golden);
}

static void compare_section(struct comparison *c, const char *name, mjtObj type, int n, const json_t *section)
{
    const char *key;
    json_t *golden;
    struct field field;

    json_object_foreach((json_t *)(uintptr_t)section, key, golden) {
        if (strcmp(key, "name") == 0)
            compare_names(c, name, type, n, golden);
        else if (find_field(c->model, key, &field))
            compare_field(c, &field, golden);
    }
}

static void compare_dump(struct comparison *c, const json_t *dump)
{
    const mjModel *m = c->model;
    const struct { const char *name; mjtObj type; int n; } sections[] = {
        {"body", mjOBJ_BODY, (int)m->nbody},
        {"joint", mjOBJ_JOINT, (int)m->njnt},
        {"dof", mjOBJ_DOF, 0},
        {"geom", mjOBJ_GEOM, (int)m->ngeom},
        {"site", mjOBJ_SITE, (int)m->nsite},
        {"actuator", mjOBJ_ACTUATOR, (int)m->nu},
        {"sensor", mjOBJ_SENSOR, (int)m->nsensor},
        {"camera", mjOBJ_CAMERA, (int)m->ncam},
        {"light", mjOBJ_LIGHT, (int)m->nlight},
        {"mesh", mjOBJ_MESH, (int)m->nmesh},
        {"texture", mjOBJ_TEXTURE, (int)m->ntex},
        {"material", mjOBJ_MATERIAL, (int)m->nmat},
    };
    struct field qpos0;

    compare_sizes(c, json_object_get(dump, "size"));
    if (c->result->wrong)
        return;                 /* nothing else can be lined up */
    for (size_t i = 0; i < ARRAY_SIZE(sections); i++)
        compare_section(c, sections[i].name, sections[i].type, sections[i].n, json_object_get(dump, sections[i].name));
    if (find_field(m, "qpos0", &qpos0))
        compare_field(c, &qpos0, json_object_get(dump, "qpos0"));
    compare_options(c, json_object_get(dump, "opt"));
    compare_rest(c, dump);
    compare_geom_meshes(c, json_object_get(json_object_get(dump, "geom"), "mesh"));
    compare_mesh_digests(c, json_object_get(dump, "mesh"));
    compare_texture_digests(c, json_object_get(json_object_get(dump, "texture"), "sha1"));
}

int check_model(const struct libero_task *task, const char *path, struct check_result *ret, struct error *error)
{
    struct comparison c = { .model = task->model, .result = ret };
    _cleanup_free_ char *text = NULL;
    json_error_t where;
    json_t *dump;
    size_t n;
    int r = gzip_read(path, MAX_DUMP, &text, &n, error);

    if (r < 0)
        return r;
    dump = json_loadb(text, n, 0, &where);
    if (!json_is_object(dump)) {
        json_decref(dump);
        return error_set(error, EINVAL, "%s: line %d: %s", path, where.line, where.text);
    }
    *ret = (struct check_result) { .first_bad = -1 };
    compare_dump(&c, dump);
    json_decref(dump);
    return 0;
}
