/* prm_compare.c - one line for each tensor: shape, largest absolute and relative error, tolerance, PASS or FAIL. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "base/strbuf.h"
#include "nn/golden/prm_internal.h"

static void line(struct prm_check *p, const char *name, const char *shape, double absolute, double relative, const char *limit,
                 bool pass)
{
    char full[160];

    snprintf(full, sizeof(full), "%s%s%s%s", p->name ? p->name : "", p->name ? "/" : "", p->bf16 ? "bf16: " : "", name);
    p->failed += !pass;
    fprintf(p->out, "%-68s %-14s %9.2e %9.2e  %-14s %s\n", full, shape, absolute, relative, limit, pass ? "PASS" : "FAIL");
}

/* Largest absolute difference and relative L2 of the whole. */
static void measure(const double *x, const double *ref, int64_t n, double *ret_absolute, double *ret_relative)
{
    double most = 0, square = 0, of = 0;

    for (int64_t i = 0; i < n; i++) {
        double d = fabs(x[i] - ref[i]);

        if (!isfinite(d)) {
            *ret_absolute = *ret_relative = INFINITY;
            return;
        }
        most = fmax(most, d);
        square += d * d;
        of += ref[i] * ref[i];
    }
    *ret_absolute = most;
    *ret_relative = square == 0 ? 0 : sqrt(square / of);
}

static void judge(struct prm_check *p, const char *name, const char *shape, const double *x, const double *ref, int64_t n,
                  enum prm_rule rule, double limit)
{
    double absolute, relative;
    char text[32];
    bool pass;

    measure(x, ref, n, &absolute, &relative);
    switch (rule) {
    case PRM_EXACT: pass = absolute == 0; snprintf(text, sizeof(text), "exact"); break;
    case PRM_ABS: pass = absolute <= limit; snprintf(text, sizeof(text), "abs %g", limit); break;
    default: pass = relative <= limit; snprintf(text, sizeof(text), rule == PRM_REL ? "rel %g" : "rel L2 %g", limit); break;
    }
    line(p, name, shape, absolute, relative, text, pass);
}

void prm_values(struct prm_check *p, const char *name, const double *x, const double *ref, int64_t n, enum prm_rule rule,
                double limit)
{
    char shape[24];

    snprintf(shape, sizeof(shape), "[%lld]", (long long)n);
    judge(p, name, shape, x, ref, n, rule, limit);
}

static void wrong(struct prm_check *p, const char *name, const char *what)
{
    line(p, name, "-", INFINITY, INFINITY, what, false);
}

void prm_note(struct prm_check *p, const struct safetensors *file, const char *name)
{
    char key[4096];

    snprintf(key, sizeof(key), "%s: %s", file->path, name);
    json_object_set_new(p->seen, key, json_true());
}

void prm_tensor(struct prm_check *p, const struct safetensors *file, const char *name, const float *x, int64_t n,
                enum prm_rule rule, double limit)
{
    const struct st_tensor *tensor = file ? safetensors_find(file, name) : NULL;
    _cleanup_free_ double *a = calloc((size_t)n + 1, sizeof(*a)), *b = calloc((size_t)n + 1, sizeof(*b));
    _cleanup_free_ float *ref = calloc((size_t)n + 1, sizeof(*ref));
    char sides[64], shape[72];

    if (!a || !b || !ref || !tensor || tensor->numel != n || st_read_f32(tensor, 0, n, ref) < 0) {
        wrong(p, name, !tensor ? "missing" : "another size");
        return;
    }
    prm_note(p, file, name);
    for (int64_t i = 0; i < n; i++) {
        a[i] = (double)x[i];
        b[i] = (double)ref[i];
    }
    shape_text(tensor->dim, tensor->ndim, sides, sizeof(sides));
    snprintf(shape, sizeof(shape), "[%s]", sides);
    judge(p, name, shape, a, b, n, rule, limit);
}

void prm_integers(struct prm_check *p, const struct safetensors *file, const char *name, const int32_t *x, int64_t n)
{
    _cleanup_free_ float *wide = calloc((size_t)n + 1, sizeof(*wide));

    for (int64_t i = 0; wide && i < n; i++)
        wide[i] = (float)x[i];          /* ids and rows are below 2^24 */
    if (wide)
        prm_tensor(p, file, name, wide, n, PRM_EXACT, 0);
    else
        wrong(p, name, "out of memory");
}

void prm_count(struct prm_check *p, const char *name, int count, int wrong_ones, const char *first_wrong)
{
    char shape[24];

    snprintf(shape, sizeof(shape), "%d", count);
    line(p, name, shape, wrong_ones, count ? (double)wrong_ones / count : 0, "exact", count && !wrong_ones);
    if (wrong_ones)
        fprintf(p->out, "    the first of %d: %s\n", wrong_ones, first_wrong);
}

void prm_wrong(struct prm_tally *tally, const char *format, ...)
{
    va_list args;

    if (tally->wrong++)
        return;
    va_start(args, format);
    vsnprintf(tally->first, sizeof tally->first, format, args);
    va_end(args);
}

void prm_count_tally(struct prm_check *p, const char *name, int count, const struct prm_tally *tally)
{
    prm_count(p, name, count, tally->wrong, tally->first);
}

bool prm_same_integers(const json_t *want, const int *x, int n)
{
    bool same = n == (int)json_array_size(want);

    for (int i = 0; same && i < n; i++)
        same = x[i] == json_integer_value(json_array_get(want, (size_t)i));
    return same;
}

void prm_expect_all(struct prm_check *p, const char *file)
{
    const json_t *tensors = json_object_get(json_object_get(json_object_get(p->manifest, "files"), file), "tensors");
    struct prm_tally missed = {0};
    char key[4096], name[128];
    const char *tensor;
    json_t *entry;

    json_object_foreach((json_t *)(uintptr_t)tensors, tensor, entry) {
        snprintf(key, sizeof(key), "%s/%s: %s", p->dir, file, tensor);
        if (!json_object_get(p->seen, key))
            prm_wrong(&missed, "%s", tensor);
    }
    snprintf(name, sizeof(name), "%s: every tensor compared", strrchr(file, '/') ? strrchr(file, '/') + 1 : file);
    if (tensors)
        prm_count_tally(p, name, (int)json_object_size(tensors), &missed);
}

void prm_skip(struct prm_check *p, const char *name, const char *reason)
{
    char full[160];

    snprintf(full, sizeof(full), "%s%s%s", p->name ? p->name : "", p->name ? "/" : "", name);
    fprintf(p->out, "%-68s %-14s %9s %9s  %-14s SKIP %s\n", full, "-", "-", "-", "-", reason);
}

double prm_tolerance(const struct prm_check *p, const char *key)
{
    const json_t *all = json_object_get(json_object_get(p->manifest, "tolerance"), p->bf16 ? "bf16" : "fp32");
    const json_t *value = json_object_get(all, key);
    char to_fp32[64];

    snprintf(to_fp32, sizeof(to_fp32), "%s_to_fp32", key);
    value = value ? value : json_object_get(all, to_fp32);
    return json_is_number(value) ? json_number_value(value) : 0;        /* none: only what is equal passes */
}

double prm_forward_limit(const struct prm_check *p, const char *name)
{
    const json_t *measured = json_object_get(json_object_get(p->stats, p->name), "bf16_vs_fp32_rel_l2");

    return p->bf16 ? fmax(2e-3, 2 * json_number_value(json_object_get(measured, name))) : prm_tolerance(p, "tensor_rel_l2");
}

bool prm_has(const struct prm_check *p, const char *file)
{
    return json_object_get(json_object_get(p->manifest, "files"), file) != NULL;
}

struct safetensors *prm_open(struct prm_check *p, const char *file)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    struct safetensors *ret = NULL;

    strbuf_addf(&path, "%s/%s", p->dir, file);
    (void)safetensors_open(path.text, &ret, p->error);
    return ret;
}

json_t *prm_json(struct prm_check *p, const char *file)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    json_error_t where;
    json_t *ret;

    strbuf_addf(&path, "%s/%s", p->dir, file);
    ret = json_load_file(path.text, JSON_ALLOW_NUL, &where);
    if (!ret)
        (void)error_set(p->error, EINVAL, "%s:%d: %s", path.text, where.line, where.text);
    return ret;
}
