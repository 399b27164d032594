/* shell_word.h - a word as a shell takes it again: commands that are printed may be copied, also with blanks in a path. */
#pragma once

/* In quotes where it needs them; caller frees. NULL: out of memory. */
char *shell_word(const char *word);
