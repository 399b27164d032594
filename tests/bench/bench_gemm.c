/* The strict and the fast GEMM against OpenBLAS, side by side in one run on one thread, at the shapes of the tiny policies.
 *
 *   OPENBLAS_CORETYPE=SkylakeX bench_gemm [seconds per measurement, default 0.15]
 *
 * y = x W^T in GFLOP/s, with W packed once (ours; fast rounds x on the way) and as it lies in the file (OpenBLAS packs inside the
 * call; it has no way to do it before). Each pair is measured alternately, the best of several rounds counts. OpenBLAS is opened
 * at run time: the project does not link it. Its best kernels are forced by OPENBLAS_CORETYPE when the environment does not
 * say. */
#include <dlfcn.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/philox.h"
#include "nn/cpu/kernels.h"
#include "nn/gemm_pack.h"

typedef void (*sgemm_function)(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
                               const float *b, int ldb, float beta, float *c, int ldc);
enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112, ROUNDS = 5 };

struct shape { const char *what; int n, k; };

static const struct shape shapes[] = {
    {"tower patch", 96, 192}, {"tower qkv", 288, 96}, {"tower proj", 96, 96}, {"tower fc1", 384, 96}, {"tower fc2", 96, 384},
    {"projector fc1", 768, 192}, {"projector fc2", 128, 768}, {"llama q", 128, 128}, {"llama gate", 344, 128},
    {"llama down", 128, 344}, {"action head", 256, 128},
};
static const int rows[] = {1, 7, 16, 64, 256, 1024, 4096};

static float *numbers(int64_t n)
{
    struct philox p = philox_at(1, PHILOX_TEST, 0, 0, 0);
    void *x = NULL;

    if (posix_memalign(&x, 64, (size_t)(n + 64) * sizeof(float)))
        return NULL;
    for (int64_t i = 0; i < n; i++)
        ((float *)x)[i] = philox_uniform(&p) - 0.5f;
    return x;
}

struct job {
    sgemm_function sgemm;
    const float *x, *w;
    const struct gemm_pack *pack, *pairs;
    float *y, *scratch;
    int m, n, k;
};

static void run_blas(const struct job *j)
{
    j->sgemm(ROW_MAJOR, NO_TRANS, TRANS, j->m, j->n, j->k, 1.0f, j->x, j->k, j->w, j->k, 0.0f, j->y, j->n);
}

static void run_strict(const struct job *j)
{
    cpu_kernels()->gemm(&(struct gemm) {.m = j->m, .n = j->n, .k = j->k, .a = j->x, .a_row = j->k, .a_k = 1,
                                        .panels = j->pack->panels, .c = j->y, .c_row = j->n, .scratch = j->scratch});
}

static void run_fast(const struct job *j)
{
    cpu_kernels()->gemm_bf16(&(struct gemm) {.m = j->m, .n = j->n, .k = j->k, .a = j->x, .a_row = j->k, .a_k = 1,
                                             .pairs = j->pairs->pairs,
                                                  .c = j->y, .c_row = j->n, .scratch = j->scratch});
}

/* GFLOP/s of `count` calls, by the thread's CPU time: a busy machine does not distort it much. */
static double measure(void (*run)(const struct job *), const struct job *j, int64_t count)
{
    uint64_t from = clock_cpu_ns();

    for (int64_t i = 0; i < count; i++)
        run(j);
    return 2.0 * j->m * j->n * j->k * (double)count / (double)(clock_cpu_ns() - from);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 0.15;
    bool fast = cpu_kernels()->gemm_bf16;
    double mean[3];
    void *blas;
    sgemm_function sgemm;
    void (*threads)(int);
    char *(*corename)(void);

    setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    blas = dlopen("libopenblas.so.0", RTLD_NOW);
    if (!blas) {
        fprintf(stderr, "bench_gemm: %s\n", dlerror());
        return 1;
    }
    *(void **)&sgemm = dlsym(blas, "cblas_sgemm");
    *(void **)&threads = dlsym(blas, "openblas_set_num_threads");
    *(void **)&corename = dlsym(blas, "openblas_get_corename");
    if (!sgemm || !threads || !corename)
        return 1;
    threads(1);
    printf("GEMM (%s) against OpenBLAS (%s kernels), one thread, GFLOP/s%s\n\n", cpu_kernels()->isa, corename(),
           fast ? "" : "; fast: this CPU has no VDPBF16PS");
    printf("%-14s %5s %5s %5s %9s %9s %9s %13s %11s\n", "", "M", "N", "K", "OpenBLAS", "strict", "fast", "strict/OpenB.",
           "fast/strict");
    for (size_t r = 0; r < ARRAY_SIZE(rows); r++) {
        memset(mean, 0, sizeof(mean));
        for (size_t s = 0; s < ARRAY_SIZE(shapes); s++) {
            static void (*const runs[])(const struct job *) = {run_blas, run_strict, run_fast};
            const struct shape *shape = &shapes[s];
            struct job j = {.sgemm = sgemm, .m = rows[r], .n = shape->n, .k = shape->k};
            _cleanup_free_ float *x = numbers((int64_t)j.m * j.k), *w = numbers((int64_t)j.n * j.k),
                *y = numbers((int64_t)j.m * j.n);
            _cleanup_free_ float *scratch = numbers((int64_t)j.m * gemm_padded(j.n) + gemm_bf16_scratch(j.m, j.n, j.k));
            struct gemm_pack *pack = gemm_pack_new(j.k, j.n, false), *pairs = gemm_pack_new(j.k, j.n, true);
            double best[3] = {0}, first;
            int64_t count;

            if (!x || !w || !y || !scratch || !pack || !pairs)
                return 1;
            gemm_pack_fill(pack, w, true);
            if (fast)
                gemm_pack_fill(pairs, w, true);
            j.x = x, j.w = w, j.y = y, j.scratch = scratch, j.pack = pack, j.pairs = pairs;
            first = measure(run_strict, &j, 3);
            count = (int64_t)(seconds / ROUNDS / 3 * first * 1e9 / (2.0 * j.m * j.n * j.k)) + 1;
            for (int round = 0; round < ROUNDS; round++)
                for (int which = 0; which < 2 + fast; which++)
                    best[which] = fmax(best[which], measure(runs[which], &j, count));
            for (int which = 0; which < 2 + fast; which++)
                mean[which] += log(best[which]) / (double)ARRAY_SIZE(shapes);
            printf("%-14s %5d %5d %5d %9.1f %9.1f %9.1f %13.2f %11.2f\n", shape->what, j.m, j.n, j.k, best[0], best[1], best[2],
                   best[1] / best[0], best[2] / best[1]);
            gemm_pack_free(pack);
            gemm_pack_free(pairs);
        }
        printf("%-14s %5d %21.1f %9.1f %9.1f %13.2f %11.2f\n\n", "geometric mean", rows[r], exp(mean[0]), exp(mean[1]),
               fast ? exp(mean[2]) : 0.0, exp(mean[1] - mean[0]), fast ? exp(mean[2] - mean[1]) : 0.0);
    }
    return 0;
}
