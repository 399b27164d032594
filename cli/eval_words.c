#include "cli/eval_words.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rl/search.h"

int eval_parse_seeds(const char *text, struct eval_ask *ask)
{
    char *end;
    long first = strtol(text, &end, 10), last;

    if (end == text || strncmp(end, "..", 2))
        return -EINVAL;
    text = end + 2;
    last = strtol(text, &end, 10);
    if (end == text || *end || first < 0 || last < first || last > 1000000000)
        return -EINVAL;
    ask->first = (int)first;
    ask->last = (int)last;
    return 0;
}

int eval_parse_policies(char *text, struct eval_ask *ask)
{
    char *save = NULL, *word;

    for (word = strtok_r(text, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        if (ask->n_policies == RUN_MAX_POLICIES || strlen(word) >= sizeof ask->policies[0])
            return -EINVAL;
        for (int i = 0; i < ask->n_policies; i++)
            if (!strcmp(ask->policies[i], word)) {
                fprintf(stderr, "gantry eval: --policies: %s is named twice\n", word);
                return -ERANGE;
            }
        snprintf(ask->policies[ask->n_policies++], sizeof ask->policies[0], "%s", word);
    }
    return ask->n_policies ? 0 : -EINVAL;
}

int eval_parse_temperatures(char *text, struct eval_ask *ask)
{
    char *save = NULL, *end;

    ask->choose = true;
    ask->stage.n_temperatures = 0;
    for (char *word = strtok_r(text, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        if (ask->stage.n_temperatures == (int)ARRAY_SIZE(ask->stage.temperatures))
            return -EINVAL;
        ask->stage.temperatures[ask->stage.n_temperatures++] = strtod(word, &end);
        if (end == word || *end)
            return -EINVAL;
    }
    return ask->stage.n_temperatures ? 0 : -EINVAL;
}

int eval_parse_widths(char *text, int *ret, int *ret_n)
{
    char *save = NULL, *end, *dots = strstr(text, "..");
    long n = 0, last;

    *ret_n = 0;
    if (dots) {
        n = strtol(text, &end, 10);
        if (end != dots || (last = strtol(dots + 2, &end, 10)) < n || *end || n < 1)
            return -EINVAL;
        for (; n <= last && *ret_n < RUN_MAX_N; n *= 2)
            ret[(*ret_n)++] = (int)n;
        n = last;
    } else {
        for (char *word = strtok_r(text, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
            n = strtol(word, &end, 10);
            if (end == word || *end || *ret_n == RUN_MAX_N)
                return -EINVAL;
            if (n < 1 || n > SEARCH_N_MAX)
                goto range;
            ret[(*ret_n)++] = (int)n;
        }
    }
    if (*ret_n && n <= SEARCH_N_MAX)
        return 0;
    if (!*ret_n)
        return -EINVAL;
range:
    fprintf(stderr, "gantry eval: --n %ld: from 1 to %d candidates\n", n, SEARCH_N_MAX);
    return -ERANGE;
}

int eval_parse_count(const char *text, int *ret)
{
    char *end;
    long n = strtol(text, &end, 10);

    if (end == text || *end || n < 1 || n > INT_MAX)
        return -EINVAL;
    *ret = (int)n;
    return 0;
}

int eval_parse_steps(const char *option, const char *text, int *ret)
{
    char *end;
    long steps = strtol(text, &end, 10);

    if (end == text || *end)
        return -EINVAL;
    if (steps < 1 || steps > SEARCH_H_MAX) {
        fprintf(stderr, "gantry eval: --%s %ld: from 1 to %d steps\n", option, steps, SEARCH_H_MAX);
        return -ERANGE;
    }
    *ret = (int)steps;
    return 0;
}

int eval_parse_name(const char *option, const char *text, const char *const *names, int *ret)
{
    int at = search_name(names, text);

    if (at < 0) {
        fprintf(stderr, "gantry eval: --%s %s: there is none; there are:", option, text);
        for (int i = 0; names[i]; i++)
            fprintf(stderr, " %s", names[i]);
        fprintf(stderr, "\n");
        return -ERANGE;
    }
    *ret = at;
    return 0;
}

int eval_parse_controls(char *text, struct eval_config *stage)
{
    char *save = NULL;

    for (char *word = strtok_r(text, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        if (stage->n_search_controls == RUN_MAX_CONTROLS || strlen(word) >= sizeof stage->search_controls[0])
            return -EINVAL;
        snprintf(stage->search_controls[stage->n_search_controls++], sizeof stage->search_controls[0], "%s", word);
    }
    return 0;
}

int eval_parse_number(const char *text, double *ret)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value >= 0 && value <= 10))
        return -EINVAL;
    *ret = value;
    return 0;
}
