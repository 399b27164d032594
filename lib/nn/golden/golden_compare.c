/* golden_compare.c - numbers against the reference's, each under the tolerance that the manifest gives its tensor. */
#include <errno.h>
#include <math.h>

#include "nn/golden/golden_internal.h"

void golden_begin(struct golden *g)
{
    g->count = g->failures = 0;
    g->worst = 0;
    g->worst_name[0] = '\0';
}

void golden_end(struct golden *g, const char *group)
{
    const char *run = strcmp(g->dtype, "fp32") ? g->dtype : "";
    int width = 24 - (*run ? (int)strlen(run) + 1 : 0);

    if (!g->count)                              /* a group that compares nothing agrees with nothing */
        golden_expect(g, false, "nothing to compare");
    g->groups_failed += g->failures > 0;
    fprintf(g->out, "%s%s%-*s %7d  %9.2g  %-6s %s\n", run, *run ? " " : "", width, group, g->count, g->worst,
            g->failures ? "FAIL" : "PASS", g->worst_name);
}

void golden_skip(struct golden *g, const char *group, int count, const char *reason)
{
    fprintf(g->out, "%-24s %7d  %9s  %-6s %s\n", group, count, "-", "SKIP", reason);
}

static void note(struct golden *g, const char *name, double fraction)
{
    g->count++;
    g->failures += !(fraction <= 1);
    if (!(fraction <= g->worst)) {
        g->worst = fraction;
        snprintf(g->worst_name, sizeof(g->worst_name), "%s", name);
    }
}

void golden_expect(struct golden *g, bool true_, const char *name)
{
    note(g, name, true_ ? 0 : INFINITY);
}

static void mark(struct golden *g, const char *file, const char *name)
{
    char key[256];

    snprintf(key, sizeof(key), "%s.safetensors/%s", file, name);
    json_object_set_new(g->seen, key, json_true());
}

const json_t *golden_entry(struct golden *g, const char *file, const char *name)
{
    char key[64];

    snprintf(key, sizeof(key), "%s.safetensors", file);
    return json_object_get(json_object_get(json_object_get(json_object_get(g->manifest, "files"), key), "tensors"), name);
}

static const struct st_tensor *find(struct golden *g, const char *file, const char *name)
{
    for (int i = 0; i < g->n_files; i++)
        if (!strcmp(g->files[i].name, file))
            return safetensors_find(g->files[i].file, name);
    return NULL;
}

bool golden_is_open(const struct golden *g, const char *name)
{
    for (int i = 0; i < g->n_files; i++)
        if (!strcmp(g->files[i].name, name))
            return true;
    return false;
}

bool golden_has(struct golden *g, const char *file, const char *name)
{
    return find(g, file, name) != NULL;
}

const struct st_tensor *golden_input(struct golden *g, const char *file, const char *name)
{
    const struct st_tensor *tensor = find(g, file, name);

    if (!tensor)
        (void)error_set(g->error, ENOENT, "golden/%s.safetensors: tensor %s is missing", file, name);
    mark(g, file, name);
    return tensor;
}

/* The error as a part of what `tolerance` allows; +inf for anything that is no number or not exactly equal where it must be. */
static double fraction_of(const char *tolerance, bool bf16, const double *x, const double *ref, int64_t n)
{
    double max_d = 0, max_ref = 0, sum_d = 0, sum_ref = 0, max_rel = 0, limit;

    for (int64_t i = 0; i < n; i++) {
        double d = fabs(x[i] - ref[i]);

        if (!isfinite(d))
            return INFINITY;
        max_d = fmax(max_d, d);
        max_ref = fmax(max_ref, fabs(ref[i]));
        sum_d += d * d;
        sum_ref += ref[i] * ref[i];
        max_rel = d > 0 ? fmax(max_rel, d / fabs(ref[i])) : max_rel;
    }
    if (max_d == 0)
        return 0;
    if (!strncmp(tolerance, "exact", 5))
        return INFINITY;
    if (sscanf(tolerance, "fp32 abs %lf", &limit) == 1 || sscanf(tolerance, "abs %lf", &limit) == 1)
        return max_d / limit;
    if (!strcmp(tolerance, "bf16 l2") || !strcmp(tolerance, "bf16 abs"))        /* logits: no element far off either */
        return fmax(sqrt(sum_d / sum_ref) / 4e-2, tolerance[5] == 'a' ? max_d / 0.4 : 0);
    if (sscanf(tolerance, "rel %lf", &limit) == 1)
        return max_rel / limit;
    if (!strcmp(tolerance, "fp32 2e-4"))                        /* gradients: relative l2 and relative max */
        return fmax(sqrt(sum_d / sum_ref), max_d / max_ref) / 2e-4;
    if (!strncmp(tolerance, "follows from ", 13))               /* as far off as numbers of a forward pass may be */
        return bf16 ? sqrt(sum_d / sum_ref) / 4e-2 : max_d / max_ref / 1e-4;
    if (sscanf(tolerance, "fp32 %lf", &limit) == 1)
        return max_d / max_ref / limit;
    return INFINITY;                                            /* a tolerance this file does not know */
}

static int read_doubles(const struct st_tensor *tensor, double *ret)
{
    for (int64_t i = 0; i < tensor->numel; i++) {
        float f;
        int32_t i32;

        if (tensor->dtype == DTYPE_F64) {
            memcpy(&ret[i], (const char *)tensor->data + i * 8, 8);
        } else if (tensor->dtype == DTYPE_I32) {
            memcpy(&i32, (const char *)tensor->data + i * 4, 4);
            ret[i] = i32;
        } else {
            if (st_read_f32(tensor, i, 1, &f) < 0)
                return -EINVAL;
            ret[i] = (double)f;
        }
    }
    return 0;
}

/* As much of `noise` as is above 0 is taken off each difference before it is held against the tolerance. */
static void forgive(double *x, const double *ref, const double *noise, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double d = x[i] - ref[i];

        x[i] = fabs(d) <= noise[i] ? ref[i] : x[i] - copysign(noise[i], d);
    }
}

int golden_compare_noisy(struct golden *g, const char *file, const char *name, const double *x, const double *noise, int64_t n)
{
    const struct st_tensor *tensor = golden_input(g, file, name);
    _cleanup_free_ double *ref = calloc((size_t)n + 1, sizeof(*ref)), *near = calloc((size_t)n + 1, sizeof(*near));

    if (!tensor)
        return -ENOENT;
    if (!ref || !near || tensor->numel != n || read_doubles(tensor, ref) < 0)
        return error_set(g->error, EINVAL, "golden/%s.safetensors: %s does not have %lld values", file, name, (long long)n);
    memcpy(near, x, (size_t)n * sizeof(*near));
    forgive(near, ref, noise, n);
    return golden_compare_double(g, file, name, near, n);
}

int golden_compare_double(struct golden *g, const char *file, const char *name, const double *x, int64_t n)
{
    const struct st_tensor *tensor = golden_input(g, file, name);
    const char *tolerance = json_string_value(json_object_get(golden_entry(g, file, name), "tolerance"));
    _cleanup_free_ double *ref = NULL;

    if (!tensor)
        return -ENOENT;
    ref = calloc((size_t)tensor->numel + 1, sizeof(*ref));
    if (!ref)
        return error_set(g->error, ENOMEM, "out of memory");
    if (tensor->numel != n || !tolerance || read_doubles(tensor, ref) < 0)
        return error_set(g->error, EINVAL, "golden/%s.safetensors: %s has %lld values, expected %lld; tolerance %s", file, name,
                         (long long)tensor->numel, (long long)n, tolerance ? tolerance : "missing");
    note(g, name, fraction_of(tolerance, !strcmp(g->dtype, "bf16"), x, ref, n));
    return 0;
}

int golden_compare(struct golden *g, const char *file, const char *name, const float *x, int64_t n)
{
    _cleanup_free_ double *wide = calloc((size_t)n + 1, sizeof(*wide));

    if (!wide)
        return error_set(g->error, ENOMEM, "out of memory");
    for (int64_t i = 0; i < n; i++)
        wide[i] = (double)x[i];
    return golden_compare_double(g, file, name, wide, n);
}

const char *golden_name(const struct golden *g, const char *what, char ret[64])
{
    snprintf(ret, 64, "%s.%s", g->dtype, what);
    return ret;
}

/* Whether the reference's best two of place `at` are nearer than `limit` in the run of that dtype. */
static bool is_close(struct golden *g, const char *file, const char *dtype, const char *margins_of, int64_t at, double limit)
{
    const struct st_tensor *margins;
    char name[64];
    float margin;

    snprintf(name, sizeof(name), "%s.%s", dtype, margins_of);
    margins = find(g, file, name);
    return margins && st_read_f32(margins, at, 1, &margin) >= 0 && (double)margin <= limit;
}

int32_t golden_undecided(struct golden *g, const char *file, const char *ids_of, const char *margins_of, int64_t at, int32_t id)
{
    char name[64];
    const char *tolerance = json_string_value(json_object_get(golden_entry(g, file, golden_name(g, ids_of, name)), "tolerance"));
    const struct st_tensor *ids = find(g, file, name);
    double limit;
    int32_t theirs;

    if (!tolerance || sscanf(tolerance, "exact where margin > %lf", &limit) != 1 || !ids ||
        ids->dtype != DTYPE_I32 || at >= ids->numel)
        return id;
    if (!is_close(g, file, g->dtype, margins_of, at, limit) && !is_close(g, file, "fp32", margins_of, at, limit))
        return id;
    memcpy(&theirs, (const char *)ids->data + at * (int64_t)sizeof(theirs), sizeof(theirs));
    return theirs;
}

int golden_compare_margin(struct golden *g, const char *file, const char *name, const float *x, int64_t n)
{
    const char *tolerance = json_string_value(json_object_get(golden_entry(g, file, name), "tolerance"));
    const struct st_tensor *tensor = golden_input(g, file, name);
    double worst = 0;

    if (!tolerance || strcmp(tolerance, "bf16 abs"))
        return golden_compare(g, file, name, x, n);
    if (!tensor || tensor->numel != n)
        return error_set(g->error, EINVAL, "golden/%s.safetensors: %s does not have %lld values", file, name, (long long)n);
    for (int64_t i = 0; i < n; i++) {
        float ref;
        double d = st_read_f32(tensor, i, 1, &ref) < 0 ? INFINITY : fabs((double)x[i] - (double)ref);

        worst = isfinite(d) ? fmax(worst, d) : INFINITY;
    }
    note(g, name, worst / 0.4);
    return 0;
}

int golden_compare_int(struct golden *g, const char *file, const char *name, const int32_t *x, int64_t n)
{
    _cleanup_free_ double *wide = calloc((size_t)n + 1, sizeof(*wide));

    if (!wide)
        return error_set(g->error, ENOMEM, "out of memory");
    for (int64_t i = 0; i < n; i++)
        wide[i] = x[i];
    return golden_compare_double(g, file, name, wide, n);
}

int golden_compare_bytes(struct golden *g, const char *file, const char *name, const void *x, size_t bytes)
{
    const struct st_tensor *tensor = golden_input(g, file, name);

    if (!tensor)
        return -ENOENT;
    note(g, name, tensor->bytes == bytes && !memcmp(tensor->data, x, bytes) ? 0 : INFINITY);
    return 0;
}

int golden_compare_sampled(struct golden *g, const char *file, const char *name, const float *x, int64_t n)
{
    const json_t *entry = golden_entry(g, file, name), *l2 = json_object_get(entry, "l2");
    const char *what = json_string_value(json_object_get(entry, "what"));
    _cleanup_free_ float *sampled = calloc((size_t)n + 1, sizeof(*sampled));
    int stride = 1;
    double sum = 0;
    int64_t m = 0;

    if (!sampled)
        return error_set(g->error, ENOMEM, "out of memory");
    const char *every = what ? strstr(what, "flattened, every ") : NULL;

    if (what && sscanf(what, "sampled, flat stride %d", &stride) != 1 &&
        (!every || sscanf(every, "flattened, every %dth", &stride) != 1))
        stride = 1;
    for (int64_t i = 0; i < n; i += stride)
        sampled[m++] = x[i];
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    if (l2)         /* of the whole tensor: elements between the samples count too */
        note(g, name, fabs(sqrt(sum) / json_number_value(l2) - 1) / 2e-4);
    return golden_compare(g, file, name, sampled, m);
}

int golden_compare_rows(struct golden *g, const char *file, const char *name, const char *rows, const float *x, int64_t row_count,
                        int64_t cols)
{
    const struct st_tensor *list = golden_input(g, file, rows);
    _cleanup_free_ float *taken = NULL;

    if (!list)
        return -ENOENT;
    taken = calloc((size_t)(list->numel * cols) + 1, sizeof(*taken));
    if (!taken)
        return error_set(g->error, ENOMEM, "out of memory");
    for (int64_t i = 0; i < list->numel; i++) {
        int32_t row;

        memcpy(&row, (const char *)list->data + i * 4, 4);
        if (row < 0 || row >= row_count)
            return error_set(g->error, EINVAL, "golden/%s.safetensors: %s names row %d", file, rows, row);
        memcpy(taken + i * cols, x + row * cols, (size_t)cols * sizeof(*taken));
    }
    return golden_compare(g, file, name, taken, list->numel * cols);
}
