/* report_films.h - film strips of a few episodes for the report: a failure and a success of each task, the earliest policy's
 * and the newest's, with the reward model's progress beneath. */
#pragma once

#include "base/strbuf.h"
#include "cli/report_data.h"

/* Appends <figure>s. Episodes whose journal segment has gone are passed over; says so when none is left. */
void report_films_write(const char *run_dir, const struct report_data *data, struct strbuf *out);

struct journal;
/* One episode as a <figure> with this caption. -ENOENT: not in the journal any more; -EBADMSG, -ENOMEM. */
int report_film_write(struct journal *journal, const struct ledger_episode *episode, const char *caption, struct strbuf *out);
