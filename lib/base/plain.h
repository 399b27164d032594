/* plain.h - the words of others, made fit for terminals and logs: nothing in them may move a cursor or begin a line. */
#pragma once

#include <stddef.h>

/* Bytes of the control character that `text` begins with; 0: it begins with none. Terminals obey those of Unicode, U+0080 to
 * U+009F, as they do ASCII's. */
size_t control_length(const char *text);

/* Every byte of every one becomes `instead`, in place. NULL is fine. */
void make_plain(char *text, char instead);
