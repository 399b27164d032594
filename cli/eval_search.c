/* What look-ahead brings: success by n on the same states, its controls, its price, and the two laws. */
#include <errno.h>
#include <math.h>

#include "base/figure.h"
#include "cli/eval.h"
#include "cli/plot_png.h"
#include "rl/scaling.h"

/* One policy's scaling. */
struct scaling {
    int n[RUN_MAX_N], points, states;
    double *outcomes; /* (points, states), states that every n has */
    struct scaling_fit line, power;
    bool fitted;
    int saturated; /* 0: not within what was tried */
};

static void search_tag(const struct eval *eval, int policy, int n, const char *control, char ret[EVAL_TAG])
{
    snprintf(ret, EVAL_TAG, "search %s n=%d%s%s", eval->ask->policies[policy], n, control ? " " : "", control ? control : "");
}

static bool was_searched(const struct eval *eval, int policy)
{
    for (size_t i = 0; i < eval->n_episodes; i++)
        if (!strncmp(eval->episodes[i].tag, "search ", 7) &&
            !strncmp(eval->episodes[i].tag + 7, eval->ask->policies[policy], strlen(eval->ask->policies[policy])) &&
            eval->episodes[i].tag[7 + strlen(eval->ask->policies[policy])] == ' ')
            return true;
    return false;
}

/* n ascending, each once: laws and saturation want them so. */
static int widths(const struct eval *eval, int *ret)
{
    const struct eval_config *stage = &eval->ask->stage;
    int n = 0;

    for (int at = 1; at <= SEARCH_N_MAX; at++)
        for (int i = 0; i < stage->n_n; i++)
            if (stage->n[i] == at && (!n || ret[n - 1] != at))
                ret[n++] = at;
    return n;
}

static int read_scaling(const struct eval *eval, int policy, struct scaling *ret)
{
    struct scaling s = {.points = widths(eval, s.n)};
    char tag[EVAL_TAG];
    int r = 0;

    s.outcomes = calloc((size_t)eval->states * RUN_MAX_N, sizeof *s.outcomes);
    if (!s.outcomes)
        return -ENOMEM;
    for (int i = 0; i < s.points; i++) {
        search_tag(eval, policy, s.n[i], NULL, tag);
        (void)eval_outcomes(eval, tag, s.outcomes + i * eval->states);
    }
    for (int k = 0; k < eval->states; k++) { /* move complete states to the front, row by row below */
        bool whole = true;

        for (int i = 0; i < s.points; i++)
            whole = whole && !isnan(s.outcomes[i * eval->states + k]);
        if (whole) {
            for (int i = 0; i < s.points; i++)
                s.outcomes[i * eval->states + s.states] = s.outcomes[i * eval->states + k];
            s.states++;
        }
    }
    for (int i = 1; i < s.points; i++)
        memmove(s.outcomes + i * s.states, s.outcomes + i * eval->states, sizeof *s.outcomes * (size_t)s.states);
    if (s.points > 1 && s.states > 0) {
        r = scaling_fit(s.n, s.points, s.outcomes, s.states, EVAL_FIT_RESAMPLES, eval->config.seed, &s.line, &s.power);
        if (r == 0)
            r = scaling_saturated(s.n, s.points, s.outcomes, s.states, EVAL_FIT_RESAMPLES, eval->config.seed, &s.saturated);
        s.fitted = r == 0;
    }
    if (r < 0) {
        free(s.outcomes);
        return r;
    }
    *ret = s;
    return 0;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------- */

static int write_row(const struct eval *eval, const char *tag, const char *key, const double *one,
                     const struct eval_cost *cost_of_one, struct json_writer *w, struct error *error)
{
    _cleanup_free_ double *outcomes = calloc((size_t)eval->states, sizeof *outcomes);
    struct paired d;
    struct interval interval;
    struct eval_cost cost;
    int64_t n, successes = 0;
    int r;

    if (!outcomes)
        return error_set(error, ENOMEM, "out of memory");
    n = eval_outcomes(eval, tag, outcomes);
    for (int i = 0; i < eval->states; i++)
        successes += outcomes[i] > 0;
    if (!n)
        return 0;
    r = eval_costs(eval, tag, &cost, error);
    if (r < 0)
        return r;
    interval = wilson(successes, n, EVAL_Z95);
    json_open(w, key, '{');
    json_signed(w, "episodes", n);
    json_number(w, "success", (double)successes / (double)n);
    json_interval(w, "interval", interval.low, interval.high);
    if (one && paired_compare(outcomes, one, eval->states, eval->config.seed, &d) == 0) {
        json_open(w, "over_n1", '{');
        eval_write_difference(&d, w);
        json_close(w, '}');
    }
    json_number(w, "mean_steps", cost.steps / cost.episodes);
    json_number(w, "policy_steps_per_action", cost.policy_steps / cost.steps);
    json_number(w, "slot_ms_per_action", cost.slot_us / cost.steps / 1000);
    if (cost_of_one && cost_of_one->steps > 0)
        json_number(w, "time_over_n1", cost.slot_us / cost.steps / (cost_of_one->slot_us / cost_of_one->steps));
    if (cost.decisions) {
        json_number(w, "chosen_worth", cost.chosen);
        json_number(w, "mean_worth", cost.all);
        json_number(w, "chosen_worth_when_success", cost.chosen_success);
        json_number(w, "chosen_worth_when_failure", cost.chosen_failure);
        json_number(w, "worth_success_correlation", cost.correlation);
    }
    json_close(w, '}');
    return 0;
}

static void write_fit(const struct scaling_fit *fit, const char *key, const char *a, const char *b, struct json_writer *w)
{
    char name[24];

    json_open(w, key, '{');
    json_number(w, a, fit->a);
    snprintf(name, sizeof name, "%s_interval", a);
    json_interval(w, name, fit->a_interval.low, fit->a_interval.high);
    json_number(w, b, fit->b);
    snprintf(name, sizeof name, "%s_interval", b);
    json_interval(w, name, fit->b_interval.low, fit->b_interval.high);
    json_number(w, "aic", fit->aic);
    json_close(w, '}');
}

static int write_controls(const struct eval *eval, int policy, int n, const double *one, const struct eval_cost *cost_of_one,
                          struct json_writer *w, struct error *error)
{
    const struct eval_config *stage = &eval->ask->stage;
    int r = 0;

    for (int k = 0; k < stage->n_search_controls && r == 0; k++) {
        bool oracle = !strcmp(stage->search_controls[k], "oracle");
        char tag[EVAL_TAG], key[40];

        search_tag(eval, policy, n, stage->search_controls[k], tag);
        snprintf(key, sizeof key, "n%d_%s%s", n, stage->search_controls[k], oracle ? "_ceiling" : "");
        r = write_row(eval, tag, key, one, cost_of_one, w, error);
    }
    return r;
}

static int write_policy(const struct eval *eval, int policy, struct json_writer *w, struct error *error)
{
    _cleanup_free_ double *one = calloc((size_t)eval->states, sizeof *one);
    struct eval_cost cost = {0};
    struct scaling s;
    char tag[EVAL_TAG], key[16];
    int r = one ? read_scaling(eval, policy, &s) : -ENOMEM;

    if (r < 0)
        return error_set(error, -r, "the laws of scaling: %s", strerror(-r));
    search_tag(eval, policy, 1, NULL, tag);
    if (eval_outcomes(eval, tag, one) == 0)
        r = 0;
    else
        r = eval_costs(eval, tag, &cost, error);
    json_open(w, eval->ask->policies[policy], '{');
    snprintf(tag, sizeof tag, "search %s greedy", eval->ask->policies[policy]);
    if (r == 0)
        r = write_row(eval, tag, "greedy", NULL, &cost, w, error);
    for (int i = 0; i < s.points && r == 0; i++) {
        search_tag(eval, policy, s.n[i], NULL, tag);
        snprintf(key, sizeof key, "n%d", s.n[i]);
        r = write_row(eval, tag, key, s.n[i] > 1 ? one : NULL, &cost, w, error);
        if (r == 0 && s.n[i] > 1)
            r = write_controls(eval, policy, s.n[i], one, &cost, w, error);
    }
    if (s.fitted) {
        write_fit(&s.line, "log_law", "a", "b", w);
        write_fit(&s.power, "power_law", "c", "k", w);
        json_text(w, "better_law", s.line.aic <= s.power.aic ? "log_law" : "power_law");
        if (s.saturated)
            json_signed(w, "saturated_from", s.saturated);
        else
            json_text(w, "saturated_from", NULL);
    }
    json_close(w, '}');
    free(s.outcomes);
    return r;
}

int eval_write_search(const struct eval *eval, struct json_writer *w, struct error *error)
{
    const struct eval_config *stage = &eval->ask->stage;
    int r = 0;

    if (stage->n_n < 2 && stage->n[0] < 2)
        return 0;
    json_open(w, "search", '{');
    json_text(w, "method", search_method_names[stage->search_method]);
    json_text(w, "judge", search_judge_names[stage->search_judge]);
    json_text(w, "score", stage->search_score);
    json_signed(w, "horizon", stage->search_horizon);
    json_signed(w, "execute", stage->search_execute);
    json_number(w, "temperature", stage->search_temperature);
    for (int i = 0; i < eval->ask->n_policies && r == 0; i++)
        if (was_searched(eval, i))
            r = write_policy(eval, i, w, error);
    json_close(w, '}');
    return r;
}

/* ---- table and picture ---------------------------------------------------------------------------------------------------- */

static int print_row(const struct eval *eval, const char *tag, const char *what, const struct eval_cost *one, struct error *error)
{
    _cleanup_free_ double *outcomes = calloc((size_t)eval->states, sizeof *outcomes);
    int64_t n = outcomes ? eval_outcomes(eval, tag, outcomes) : 0, successes = 0;
    struct eval_cost cost;
    struct interval interval;
    int r;

    if (!n)
        return 0;
    for (int i = 0; i < eval->states; i++)
        successes += outcomes[i] > 0;
    interval = wilson(successes, n, EVAL_Z95);
    r = eval_costs(eval, tag, &cost, error);
    if (r < 0)
        return r;
    printf("  %-22s success %.3f [%.3f %.3f]  %5.1f steps  %6.1f policy steps an action", what, (double)successes / (double)n,
           interval.low, interval.high, cost.steps / cost.episodes, cost.policy_steps / cost.steps);
    if (one->steps > 0)
        printf("  time x%.2f of n = 1", cost.slot_us / cost.steps / (one->slot_us / one->steps));
    if (cost.decisions)
        printf("  chosen %.3f of mean %.3f", cost.chosen, cost.all);
    printf("\n");
    return 0;
}

static int print_policy(const struct eval *eval, int policy, struct error *error)
{
    const struct eval_config *stage = &eval->ask->stage;
    struct eval_cost one = {0};
    struct scaling s;
    char tag[EVAL_TAG], what[40];
    int r = read_scaling(eval, policy, &s);

    if (r < 0)
        return error_set(error, -r, "the laws of scaling: %s", strerror(-r));
    search_tag(eval, policy, 1, NULL, tag);
    if ((r = eval_costs(eval, tag, &one, error)) == 0) {
        printf("%s, %s by %s, H %d, m %d, T %.2g, %d states:\n", eval->ask->policies[policy],
               search_method_names[stage->search_method], search_judge_names[stage->search_judge], stage->search_horizon,
               stage->search_execute, stage->search_temperature, s.states);
        snprintf(tag, sizeof tag, "search %s greedy", eval->ask->policies[policy]);
        r = print_row(eval, tag, "greedy", &one, error);
    }
    for (int i = 0; i < s.points && r == 0; i++) {
        search_tag(eval, policy, s.n[i], NULL, tag);
        snprintf(what, sizeof what, "n = %d%s", s.n[i], s.saturated == s.n[i] ? " (saturated)" : "");
        r = print_row(eval, tag, what, &one, error);
        for (int k = 0; k < stage->n_search_controls && r == 0; k++) {
            search_tag(eval, policy, s.n[i], stage->search_controls[k], tag);
            snprintf(what, sizeof what, "  %s%s of %d", stage->search_controls[k],
                     strcmp(stage->search_controls[k], "oracle") != 0 ? "" : " (ceiling)", s.n[i]);
            r = print_row(eval, tag, what, &one, error);
        }
    }
    if (s.fitted && r == 0)
        printf("  success = %.3f + %.4f [%.4f %.4f] log2 n, AIC %.1f;  1 - success = %.3f n^%.3f [%.3f %.3f], AIC %.1f\n",
               figure(s.line.a, 3), figure(s.line.b, 4), figure(s.line.b_interval.low, 4), figure(s.line.b_interval.high, 4),
               s.line.aic, s.power.a, figure(-s.power.b, 3), figure(-s.power.b_interval.high, 3),
               figure(-s.power.b_interval.low, 3), s.power.aic);
    free(s.outcomes);
    return r;
}

int eval_print_search(const struct eval *eval, struct error *error)
{
    int r = 0;

    for (int i = 0; i < eval->ask->n_policies && r == 0; i++)
        if (was_searched(eval, i))
            r = print_policy(eval, i, error);
    return r;
}

/* Points with their intervals, and the law that fits better. */
static int plot_policy(const struct eval *eval, int policy, struct plot *plot)
{
    enum { CURVE = 40 };
    double x[RUN_MAX_N], y[RUN_MAX_N], low[RUN_MAX_N], high[RUN_MAX_N], cx[CURVE], cy[CURVE];
    char name[64];
    struct scaling s;
    int r = read_scaling(eval, policy, &s);

    if (r < 0)
        return r;
    for (int i = 0; i < s.points; i++) {
        struct interval interval;
        double successes = 0;

        for (int k = 0; k < s.states; k++)
            successes += s.outcomes[i * s.states + k];
        interval = wilson((int64_t)successes, s.states, EVAL_Z95);
        x[i] = log2(s.n[i]);
        y[i] = successes / MAX(s.states, 1);
        low[i] = interval.low;
        high[i] = interval.high;
    }
    r = plot_band(plot, "", x, low, high, s.points);
    snprintf(name, sizeof name, "%s", eval->ask->policies[policy]);
    if (r == 0)
        r = plot_line(plot, name, x, y, s.points, PLOT_DOTS);
    if (r == 0 && s.fitted) {
        bool line = s.line.aic <= s.power.aic;

        for (int i = 0; i < CURVE; i++) {
            cx[i] = x[s.points - 1] * i / (CURVE - 1);
            cy[i] = line ? s.line.a + s.line.b * cx[i] : 1 - s.power.a * pow(2, -s.power.b * cx[i]);
        }
        if (line)
            snprintf(name, sizeof name, "%.3f + %.3f log2 n", figure(s.line.a, 3), figure(s.line.b, 3));
        else
            snprintf(name, sizeof name, "1 - %.3f n^%.3f", s.power.a, figure(-s.power.b, 3));
        r = plot_line(plot, name, cx, cy, CURVE, PLOT_THIN);
    }
    free(s.outcomes);
    return r;
}

int eval_plot_search(const struct eval *eval, const char *path, struct error *error)
{
    static const char *const powers[] = {"1", "2", "4", "8", "16", "32", "64", "128"}; /* x is log2 n */
    struct plot plot = {.title = "Success by candidates of look-ahead (95 % intervals)",
                        .x_label = "n",
                        .y_min = 0,
                        .y_max = 1,
                        .x_names = powers,
                        .n_x_names = 1};
    int r = 0;

    _Static_assert(1 << (ARRAY_SIZE(powers) - 1) == SEARCH_N_MAX, "a name for every power of two up to the largest n");
    for (int i = 0; i < eval->ask->stage.n_n; i++)
        while (1 << (plot.n_x_names - 1) < eval->ask->stage.n[i])
            plot.n_x_names++;
    for (int i = 0; i < eval->ask->n_policies && r == 0; i++)
        if (was_searched(eval, i))
            r = plot_policy(eval, i, &plot);
    return plot_finish_png(&plot, r, path, error);
}
