#include "rl/losses.h"

#include <math.h>

enum { LOG_RATIO_MAX = 20 };    /* e^20 is far beyond any clip, and still finite in fp32 */

void ppo_sums_add(struct ppo_sums *total, const struct ppo_sums *part)
{
    total->policy_loss += part->policy_loss;
    total->value_loss += part->value_loss;
    total->kl_loss += part->kl_loss;
    total->entropy_loss += part->entropy_loss;
    total->entropy += part->entropy;
    total->ratio += part->ratio;
    total->ratio_max = MAX(total->ratio_max, part->ratio_max);
    total->approx_kl += part->approx_kl;
    total->ref_kl += part->ref_kl;
    total->importance += part->importance;
    total->clipped += part->clipped;
    total->decisions += part->decisions;
    total->steps += part->steps;
    total->tokens += part->tokens;
}

void ppo_policy_loss(const struct ppo_clip *clip, const double *logp, const double *logp_old, const double *advantage,
                     const double *importance, int n, int64_t count, double *ret_dlogp, struct ppo_sums *sums)
{
    for (int i = 0; i < n; i++) {
        double a = advantage[i], w = importance ? importance[i] : 1;
        double log_ratio = logp[i] - logp_old[i];
        double held = CLAMP(log_ratio, -LOG_RATIO_MAX, LOG_RATIO_MAX);
        double ratio = exp(held), clipped = CLAMP(ratio, 1 - clip->low, 1 + clip->high);
        double objective = MIN(ratio * a, clipped * a);
        double slope = ratio * a <= clipped * a && held == log_ratio ? ratio * a : 0;    /* d objective / d logp */

        if (clip->dual > 0 && a < 0 && objective < clip->dual * a) {
            objective = clip->dual * a;
            slope = 0;
        }
        ret_dlogp[i] = -w * slope / (double)count;
        sums->policy_loss -= w * objective / (double)count;
        sums->importance += w;
        sums->ratio += ratio;
        sums->ratio_max = MAX(sums->ratio_max, ratio);
        sums->approx_kl += ratio - 1 - held;
        sums->clipped += ratio != clipped;
        sums->steps++;
    }
}

double staleness_weight(double logp_old, double logp_mu)
{
    return MIN(exp(CLAMP(logp_old - logp_mu, -LOG_RATIO_MAX, LOG_RATIO_MAX)), 2);
}

/* e^2/2, or linear beyond the limit; *ret_slope its derivative. */
static double distance(double error, double huber, double *ret_slope)
{
    if (huber > 0 && fabs(error) > huber) {
        *ret_slope = error > 0 ? huber : -huber;
        return huber * (fabs(error) - huber / 2);
    }
    *ret_slope = error;
    return error * error / 2;
}

void value_loss(const struct value_settings *settings, const double *value, const double *value_old, const double *target, int n,
                int64_t count, double *ret_dvalue, struct ppo_sums *sums)
{
    for (int i = 0; i < n; i++) {
        double error = value[i] - target[i], slope, loss = distance(error, settings->huber, &slope);

        if (settings->clip > 0) {
            double held = CLAMP(value[i], value_old[i] - settings->clip, value_old[i] + settings->clip), held_slope;
            double held_loss = distance(held - target[i], settings->huber, &held_slope);

            if (held_loss > loss) {
                loss = held_loss;
                slope = held == value[i] ? held_slope : 0;
            }
        }
        ret_dvalue[i] = settings->coef * slope / (double)count;
        sums->value_loss += settings->coef * loss / (double)count;
    }
}

void kl_loss(enum kl_mode mode, const float *logp, const float *logp_ref, int n, int64_t count, double coef, double *dlogp,
             struct ppo_sums *sums)
{
    for (int i = 0; i < n; i++) {
        double d = (double)logp_ref[i] - (double)logp[i], held = CLAMP(d, -LOG_RATIO_MAX, LOG_RATIO_MAX), kl, slope;

        switch (mode) {
        case KL_K1:
            kl = -held;
            slope = 1;
            break;
        case KL_K2:
            kl = held * held / 2;
            slope = -held;
            break;
        case KL_K3:
            kl = exp(held) - held - 1;
            slope = 1 - exp(held);
            break;
        default:
            return;
        }
        if (held == d)
            dlogp[i] += coef * slope / (double)count;
        sums->kl_loss += coef * kl / (double)count;
        sums->ref_kl += kl;
    }
}

bool kl_brake_push(struct kl_brake *brake, double approx_kl, double target)
{
    int64_t held;
    double sum = 0;

    brake->window[brake->pushed++ % KL_BRAKE_WINDOW] = approx_kl;
    held = MIN(brake->pushed, KL_BRAKE_WINDOW);
    for (int64_t i = 0; i < held; i++)
        sum += brake->window[i];
    return target > 0 && !(sum / (double)held <= target);   /* NaN brakes too */
}
