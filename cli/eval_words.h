/* eval_words.h - what follows an option of `gantry eval RUN`, as numbers and lists.
 *
 * All return 0; -EINVAL: not understood, the caller says what was expected; -ERANGE: understood and impossible, already said in
 * one line on stderr. The lists cut `text` into words. After a failure the lists may be half filled: the command ends. */
#pragma once

#include "cli/eval.h"

/* "1000..1199", both included. */
int eval_parse_seeds(const char *text, struct eval_ask *ask);
int eval_parse_policies(char *text, struct eval_ask *ask);
int eval_parse_temperatures(char *text, struct eval_ask *ask);
/* "1,2,4" or "1..128", which is by doubling; at most RUN_MAX_N. */
int eval_parse_widths(char *text, int *ret, int *ret_n);
/* From 1 on. */
int eval_parse_count(const char *text, int *ret);
int eval_parse_steps(const char *option, const char *text, int *ret);
/* One of names[], which ends with NULL: its index. */
int eval_parse_name(const char *option, const char *text, const char *const *names, int *ret);
int eval_parse_controls(char *text, struct eval_config *stage);
/* 0 to 10. */
int eval_parse_number(const char *text, double *ret);
