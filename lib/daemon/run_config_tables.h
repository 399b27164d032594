/* run_config_tables.h - the rows behind run_config.h, for the files that read, write and explain it. */
#pragma once

#include "daemon/config.h"
#include "daemon/run_config.h"

struct run_section {
    const char *name;                   /* "run", "suite", ... */
    const char *help;
    const struct config_key *table;     /* offsets into struct run_config */
};
extern const struct run_section run_sections[];         /* ends with name NULL; `stages` stands apart */
const struct run_section *run_section_find(const char *name);

struct stage_kind_row {
    const char *name, *help;
    const struct config_key *table;     /* offsets into struct stage_config */
};
extern const struct stage_kind_row stage_kinds[];       /* by enum stage_kind; STAGE_KINDS of them */
enum { STAGE_KINDS = STAGE_EVAL + 1 };
extern const struct config_key stage_name_key;          /* `name`, which every stage has */

/* What a preset of the rl stage sets differently from the table's defaults (which are the preset `gantry`). A key "policy.train"
 * is of that section: it is set for the whole run, where the run file does not name it. */
struct rl_preset_value { const char *key, *value; };
struct rl_preset {
    const char *name, *help;
    const struct rl_preset_value *values;               /* ends with key NULL */
};
extern const struct rl_preset rl_presets[];             /* ends with name NULL */
const struct rl_preset *rl_preset_find(const char *name);

/* Defaults of one kind, with the preset's values for rl (preset NULL: gantry). */
void stage_config_defaults(enum stage_kind kind, const struct rl_preset *preset, struct stage_config *ret);

/* What of a file could not be read. Defaults stand there: nothing is found at fault that depends on them. */
enum { RUN_SECTIONS = 8 };
struct run_doubt {
    bool sections[RUN_SECTIONS];    /* by run_sections */
    int stage;                      /* the first one; INT_MAX: none */
};

/* Values that must fit one another; `root` is the text they came from, for line and column. */
void run_config_check(const struct run_config *config, const struct yaml_node *root, const struct run_config *before,
                      const struct run_doubt *doubt, struct config_faults *faults);
