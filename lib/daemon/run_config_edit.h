/* run_config_edit.h - a run's YAML with some values changed, as YAML again: the many files of one experiment from one.
 *
 * What a change does not name stays as it was written: defaults are not filled in, presets keep their meaning. Comments and the
 * layout are lost: a line for each section and each stage. */
#pragma once

#include "base/error.h"
#include "base/strbuf.h"

/* changes: "PLACE.KEY=VALUE", a section's key or, by the stage's name as everywhere ("rl", "sft2"), a stage's; VALUE is YAML on
 * one line, and nothing is an empty text. They are made in their order. `name` stands in messages.
 * -EINVAL: the text is no right configuration before, or after; there is no such place; *out is then as it was. */
int run_config_edit(const char *yaml, size_t n, const char *name, const char *const *changes, int n_changes, struct strbuf *out,
                    struct error *error);
