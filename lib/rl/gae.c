#include "rl/gae.h"

#include <math.h>

static double power(double x, int n)
{
    double y = x;

    for (int i = 1; i < n; i++)
        y *= x;
    return y;
}

void gae(const double *rewards, const double *values, const int *actions, int steps, double bootstrap, double gamma,
         double lambda, double *ret_advantage, double *ret_return)
{
    double running = 0, next = bootstrap;

    for (int t = steps - 1; t >= 0; t--) {
        double value = values ? values[t] : 0, discount = actions ? power(gamma, actions[t]) : gamma;

        running = rewards[t] + discount * next - value + discount * lambda * running;
        ret_advantage[t] = running;
        ret_return[t] = running + value;
        next = value;
    }
}

static double mean_of(const double *x, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return n ? sum / (double)n : 0;
}

static double square_sum(const double *x, int64_t n, double mean)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    return sum;
}

/* Equal numbers have a sum of squares, too, when their mean is rounded. */
static bool vary(const double *x, int64_t n)
{
    for (int64_t i = 1; i < n; i++)
        if (x[i] != x[0])
            return true;
    return false;
}

void normalise_advantages(double *advantage, int64_t n)
{
    double mean = mean_of(advantage, n);
    double std = n > 1 ? sqrt(square_sum(advantage, n, mean) / (double)(n - 1)) : 1;

    for (int64_t i = 0; i < n; i++)
        advantage[i] = (advantage[i] - mean) / (std + 1e-8);
}

bool group_advantages(enum advantage_mode mode, const double *reward, int n, double *ret_advantage)
{
    double mean = mean_of(reward, n), spread = square_sum(reward, n, mean);

    for (int i = 0; i < n; i++)
        ret_advantage[i] = 0;
    if (mode == ADVANTAGE_GAE || !vary(reward, n) || !(spread > 0))
        return false;
    for (int i = 0; i < n; i++)
        ret_advantage[i] = mode == ADVANTAGE_RLOO ? (reward[i] - mean) * n / (n - 1)     /* = R - mean of the others */
                                                  : (reward[i] - mean) / (sqrt(spread / n) + 1e-6);
    return true;
}

double explained_variance(const double *values, const double *returns, int64_t n)
{
    double mean = mean_of(returns, n), total = square_sum(returns, n, mean), error_mean = 0, left = 0;

    if (!vary(returns, n) || !(total > 0))
        return 0;
    for (int64_t i = 0; i < n; i++)
        error_mean += (returns[i] - values[i]) / (double)n;
    for (int64_t i = 0; i < n; i++)
        left += (returns[i] - values[i] - error_mean) * (returns[i] - values[i] - error_mean);
    return 1 - left / total;
}
