/* softmax.c - log-softmax of a row, its statistics and their gradients; AdamW beside it. */
#include "nn/cpu/kernels/isa.h"
#include "nn/cpu/kernels/vmath.h"

#define FOR_VECTORS(i, n) for (int64_t i = 0; i < (n); i += V_LANES)

void ISA_NAME(log_softmax)(float *log_probs, const float *logits, float inverse_temperature, int64_t n)
{
    v16 t = v_set1(inverse_temperature), top = v_set1(-INFINITY), sum = v_zero(), shift;
    float maximum;

    FOR_VECTORS(i, n) {
        v16 z = v_load_n(logits + i, n - i);
        if (n - i < V_LANES) {
            float tail[V_LANES];
            for (int j = 0; j < V_LANES; j++)
                tail[j] = -INFINITY;
            v_store_part(tail, z, (int)(n - i));
            z = v_load(tail);
        }
        top = v_max(top, z);
    }
    maximum = v_max_lane(top);
    shift = v_set1(maximum);
    FOR_VECTORS(i, n) {
        v16 z = v_mul(v_sub(v_load_n(logits + i, n - i), shift), t), e = v_exp(z);

        v_store_n(log_probs + i, z, n - i);
        if (n - i < V_LANES) {
            float tail[V_LANES];
            v_store(tail, e);
            e = v_load_part(tail, (int)(n - i));
        }
        sum = v_add(sum, e);
    }
    shift = v_set1(scalar_log(v_sum(sum)));
    FOR_VECTORS(i, n)
        v_store_n(log_probs + i, v_sub(v_load_n(log_probs + i, n - i), shift), n - i);
}

void ISA_NAME(token_stats)(const float *log_probs, const float *ref, int64_t n, float *ret_entropy, float *ret_kl)
{
    v16 entropy = v_zero(), kl = v_zero();

    FOR_VECTORS(i, n) {
        v16 l = v_load_n(log_probs + i, n - i), p = v_exp(l);       /* past the end l = 0: contributes nothing */

        entropy = v_fnma(p, l, entropy);
        if (ref)
            kl = v_fma(p, v_sub(l, v_load_n(ref + i, n - i)), kl);
    }
    *ret_entropy = v_sum(entropy);
    *ret_kl = v_sum(kl);
}

void ISA_NAME(token_stats_backward)(float *dlogits, const float *log_probs, const float *ref, int64_t n, int32_t target,
                                    const float stats[2], const float gradients[3], float inverse_temperature)
{
    v16 dlogp = v_set1(gradients[0]), dentropy = v_set1(gradients[1]), dkl = v_set1(gradients[2]);
    v16 entropy = v_set1(stats[0]), kl = v_set1(stats[1]), t = v_set1(inverse_temperature);

    FOR_VECTORS(i, n) {
        int64_t left = n - i;
        v16 l = v_load_n(log_probs + i, left), p = v_exp(l);
        v16 slope = v_fma(dentropy, v_add(l, entropy), dlogp);      /* times -p */

        if (ref)
            slope = v_fnma(dkl, v_sub(v_sub(l, v_load_n(ref + i, left)), kl), slope);
        v_store_n(dlogits + i, v_fnma(t, v_mul(p, slope), v_load_n(dlogits + i, left)), left);
    }
    dlogits[target] = fmaf(inverse_temperature, gradients[0], dlogits[target]);
}

void ISA_NAME(adamw)(float *value, float *m, float *v, const float *grad, int64_t n, const float constants[9])
{
    v16 beta1 = v_set1(constants[0]), rest1 = v_set1(constants[1]), beta2 = v_set1(constants[2]), rest2 = v_set1(constants[3]);
    v16 rate = v_set1(constants[4]), root2 = v_set1(constants[5]), eps = v_set1(constants[6]), decay = v_set1(constants[7]);
    v16 scale = v_set1(constants[8]);

    FOR_VECTORS(i, n) {
        int64_t left = n - i;
        v16 g = v_mul(v_load_n(grad + i, left), scale);
        v16 mi = v_fma(beta1, v_load_n(m + i, left), v_mul(rest1, g));
        v16 vi = v_fma(beta2, v_load_n(v + i, left), v_mul(v_mul(rest2, g), g));
        v16 denominator = v_fma(v_sqrt(vi), root2, eps), x = v_load_n(value + i, left);

        v_store_n(m + i, mi, left);
        v_store_n(v + i, vi, left);
        v_store_n(value + i, v_fnma(rate, v_div(mi, denominator), v_fnma(decay, x, x)), left);
    }
}
