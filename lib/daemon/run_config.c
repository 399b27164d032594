/* run_config.c - the run YAML into struct run_config and back. */
#include "daemon/run_config.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/atomic_file.h"
#include "daemon/run_config_tables.h"

const char *stage_kind_name(enum stage_kind kind) { return stage_kinds[kind].name; }

const struct rl_preset *rl_preset_find(const char *name)
{
    for (const struct rl_preset *preset = rl_presets; preset->name; preset++)
        if (!strcmp(preset->name, name))
            return preset;
    return NULL;
}

static const char *preset_says(const struct rl_preset *preset, const char *key)
{
    for (const struct rl_preset_value *v = preset->values; v->key; v++)
        if (!strcmp(v->key, key))
            return v->value;
    return NULL;
}

/* A constant of ours as YAML into one row. */
static void set_constant(const struct config_key *table, const char *name, const char *value, void *into)
{
    const struct config_key *row = config_find(table, name);
    struct config_key one[2] = {{0}, CONFIG_END};

    if (!row)
        return;                 /* a preset's key of another section: apply_preset_value */
    one[0] = *row;
    one[0].value = value;
    config_defaults(one, into);
}

void stage_config_defaults(enum stage_kind kind, const struct rl_preset *preset, struct stage_config *ret)
{
    const struct config_key *table = stage_kinds[kind].table;

    *ret = (struct stage_config) {.kind = kind};
    config_defaults(table, ret);
    if (kind != STAGE_RL || !preset)
        return;
    for (const struct rl_preset_value *v = preset->values; v->key; v++)
        set_constant(table, v->key, v->value, ret);
    snprintf(ret->rl.preset, sizeof ret->rl.preset, "%s", preset->name);
}

bool run_config_all_tasks(const struct run_config *config)
{
    return config->n_tasks == 1 && !strcmp(config->tasks[0], "all") && strcmp(config->suite, "remote") != 0;
}

int run_config_test_states(const struct run_config *config)
{
    return strncmp(config->suite, "libero_", 7) == 0 ? 50 : 0;      /* the rows of every .pruned_init file */
}

void run_config_defaults(struct run_config *config)
{
    *config = (struct run_config) {0};
    for (const struct run_section *section = run_sections; section->name; section++)
        config_defaults(section->table, config);
}

const struct run_section *run_section_find(const char *name)
{
    for (const struct run_section *section = run_sections; section->name; section++)
        if (!strcmp(section->name, name))
            return section;
    return NULL;
}

static int unknown(const struct yaml_node *node, const char *path, const char *const *words, const char *what,
                   struct config_faults *faults)
{
    const struct yaml_node at = {.line = node->key_line, .column = node->key_column};
    const char *near = config_nearest_word(words, node->key);

    return config_error(faults, &at, path, "%s%s%s", what, near ? "; nearest: " : "", near ? near : "");
}

static int find_kind(const struct yaml_node *node, const char *path, enum stage_kind *ret, struct config_faults *faults)
{
    const char *words[STAGE_KINDS + 2] = {"pretrain"};

    if (!strcmp(node->key, "pretrain")) {
        *ret = STAGE_SFT;
        return 0;
    }
    for (int kind = 0; kind < STAGE_KINDS; kind++) {
        if (!strcmp(node->key, stage_kinds[kind].name)) {
            *ret = (enum stage_kind)kind;
            return 0;
        }
        words[kind + 1] = stage_kinds[kind].name;
    }
    return unknown(node, path, words, "there is no such stage", faults);
}

/* The preset's values come before the stage's own keys, wherever the key stands. */
static const struct rl_preset *find_preset(const struct yaml_node *map)
{
    const struct yaml_node *node = yaml_tree_get(map, "preset");

    return node && node->kind == YAML_SCALAR ? rl_preset_find(node->text) : NULL;
}

static bool is_given(const struct yaml_node *map, const struct rl_preset *preset, const char *key)
{
    return yaml_tree_get(map, key) || (preset && preset_says(preset, key));
}

/* Defaults that follow from other keys, where neither the file nor the preset says otherwise. */
static void follow(const struct yaml_node *map, const struct rl_preset *preset, struct rl_config *rl)
{
    if (rl->advantage == ADVANTAGE_GAE && rl->critic == CRITIC_NONE && !is_given(map, preset, "lambda"))
        rl->lambda = 1;         /* without values a smaller one only forgets the end */
    if (rl->reward == REWARD_ENV && !is_given(map, preset, "w_env"))
        rl->w_env = 1;
}

static int parse_stage(const struct yaml_node *map, const char *path, struct stage_config *stage, struct config_faults *faults)
{
    const struct rl_preset *preset = stage->kind == STAGE_RL ? find_preset(map) : NULL;
    int r = 0;

    stage_config_defaults(stage->kind, preset, stage);
    for (const struct yaml_node *node = map->first; node; node = node->next) {
        char full[256];

        snprintf(full, sizeof full, "%s.name", path);
        if ((strcmp(node->key, "name") ? config_apply_key(stage_kinds[stage->kind].table, node, path, stage, faults)
                                       : config_set(&stage_name_key, node, full, stage, faults)) < 0)
            r = -EINVAL;
    }
    if (stage->kind == STAGE_RL)
        follow(map, preset, &stage->rl);
    return r;
}

static bool name_is_plain(const char *name)
{
    return name[0] && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == strlen(name);
}

static bool name_is_taken(const struct run_config *config, const char *name)
{
    for (int i = 0; i < config->n_stages; i++)
        if (!strcmp(config->stages[i].name, name))
            return true;
    return false;
}

/* "sft", then "sft2", "sft3": stages are told apart by name in the ledger and on disk. */
static int name_stage(const struct yaml_node *at, const char *path, const struct run_config *config, struct stage_config *stage,
                      struct config_faults *faults)
{
    int number = 2;

    if (stage->name[0]) {
        if (!name_is_plain(stage->name))
            return config_error(faults, at, path, "stage name '%s': small letters, digits, - and _ only", stage->name);
        if (name_is_taken(config, stage->name))
            return config_error(faults, at, path, "another stage is called '%s' already", stage->name);
        return 0;
    }
    snprintf(stage->name, sizeof stage->name, "%s", at->key);
    while (name_is_taken(config, stage->name))
        snprintf(stage->name, sizeof stage->name, "%s%d", at->key, number++);
    return 0;
}

/* - KIND: {keys} */
static void parse_entry(const struct yaml_node *entry, struct run_config *config, struct stage_config *stage,
                        struct config_faults *faults)
{
    static const struct yaml_node nothing = {.kind = YAML_MAP};
    const struct yaml_node *body = entry->first;
    char path[64];

    snprintf(path, sizeof path, "stages[%d]", config->n_stages);
    if (entry->kind != YAML_MAP || entry->n != 1) {
        (void)config_error(faults, entry, path, "a stage is written as - KIND: {keys}, for example - sft: {steps: 360}");
        return;
    }
    if (find_kind(body, path, &stage->kind, faults) < 0)
        return;
    snprintf(path, sizeof path, "stages[%d].%s", config->n_stages, body->key);
    if (body->kind == YAML_LIST || (body->kind == YAML_SCALAR && body->text[0]))
        (void)config_error(faults, body, path, "%s is not right here; expected: a map", yaml_kind_name(body->kind));
    else if (parse_stage(body->kind == YAML_MAP ? body : &nothing, path, stage, faults) == 0)
        (void)name_stage(body, path, config, stage, faults);
}

/* stages is a list of maps with one key each: [{demos: {...}}, {sft: {...}}] */
static void parse_stages(const struct yaml_node *list, struct run_config *config, struct run_doubt *doubt,
                         struct config_faults *faults)
{
    char path[64];
    size_t n;

    if (list->kind != YAML_LIST) {
        (void)config_error(faults, list, "stages", "%s is not right here; expected: a list of stages",
                           yaml_kind_name(list->kind));
        doubt->stage = 0;
        return;
    }
    for (const struct yaml_node *entry = list->first; entry; entry = entry->next) {
        if (config->n_stages == RUN_MAX_STAGES) {
            snprintf(path, sizeof path, "stages[%d]", config->n_stages);
            (void)config_error(faults, entry, path, "at most %d stages fit", RUN_MAX_STAGES);
            doubt->stage = MIN(doubt->stage, config->n_stages);
            return;
        }
        config->stages[config->n_stages] = (struct stage_config) {0};
        n = faults->n;
        parse_entry(entry, config, &config->stages[config->n_stages], faults);
        if (faults->n > n)
            doubt->stage = MIN(doubt->stage, config->n_stages);
        config->n_stages++;         /* those that were refused, too: the next ones keep their numbers */
    }
}

static void parse_section(const struct yaml_node *node, struct run_config *config, struct run_doubt *doubt,
                          struct config_faults *faults)
{
    const char *words[16] = {"stages"};
    const struct run_section *section = run_section_find(node->key);
    size_t n = faults->n;

    if (!strcmp(node->key, "stages")) {
        parse_stages(node, config, doubt, faults);
    } else if (!section) {
        for (size_t i = 0; run_sections[i].name; i++)
            words[i + 1] = run_sections[i].name;
        (void)unknown(node, node->key, words, "unknown section", faults);
        memset(doubt->sections, true, sizeof doubt->sections);      /* it may stand for any of them */
        doubt->stage = 0;
    } else if (node->kind == YAML_SCALAR && !node->text[0]) {
        return;             /* "suite:" with nothing below it */
    } else if (node->kind != YAML_MAP) {
        (void)config_error(faults, node, node->key, "%s is not right here; expected: a map", yaml_kind_name(node->kind));
    } else {
        (void)config_apply(section->table, node, node->key, config, faults);
    }
    if (section)
        doubt->sections[section - run_sections] |= faults->n > n;
}

/* Stage i's preset sets `key` of another section, unless the file does. An earlier stage's preset must not say otherwise. */
static void apply_preset_value(const struct yaml_node *root, int i, const struct rl_preset_value *v, struct run_config *config,
                               struct config_faults *faults)
{
    const char *dot = strchr(v->key, '.');
    const struct yaml_node *map;
    char section[24];

    if (!dot)
        return;
    snprintf(section, sizeof section, "%.*s", (int)(dot - v->key), v->key);
    map = yaml_tree_get(root, section);
    if (map && map->kind == YAML_MAP && yaml_tree_get(map, dot + 1))
        return;
    for (int earlier = 0; earlier < i; earlier++) {
        const struct stage_config *s = &config->stages[earlier];
        const char *other = s->kind == STAGE_RL ? preset_says(rl_preset_find(s->rl.preset), v->key) : NULL;

        if (other && strcmp(other, v->value) != 0) {
            (void)config_error(faults, root, v->key,
                               "the presets of stages[%d] and stages[%d] disagree about it (%s, %s); say it in the file",
                               earlier, i, other, v->value);
            return;
        }
    }
    set_constant(run_section_find(section)->table, dot + 1, v->value, config);
}

static void apply_presets(const struct yaml_node *root, struct run_config *config, struct config_faults *faults)
{
    for (int i = 0; i < config->n_stages; i++) {
        const struct rl_preset *preset = config->stages[i].kind == STAGE_RL ? rl_preset_find(config->stages[i].rl.preset) : NULL;

        for (const struct rl_preset_value *v = preset ? preset->values : NULL; v && v->key; v++)
            apply_preset_value(root, i, v, config, faults);
    }
}

/* Are the suite's name and its tasks what the file means? Where something of the section is wrong, or a section has a wrong name,
 * those that are there and right are. */
static bool suite_is_read(const struct yaml_node *root, const struct run_doubt *doubt)
{
    static const char *const keys[] = {"name", "tasks"};
    const struct run_section *section = run_section_find("suite");
    const struct yaml_node *map = yaml_tree_get(root, "suite");

    if (!doubt->sections[section - run_sections])
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        _cleanup_free_ struct run_config *scratch = calloc(1, sizeof *scratch);
        const struct yaml_node *node = map && map->kind == YAML_MAP ? yaml_tree_get(map, keys[i]) : NULL;
        struct config_faults faults = {.name = ""};

        if (!scratch || !node || config_apply_key(section->table, node, "suite", scratch, &faults) < 0)
            return false;
    }
    return true;
}

/* What is no fault of a line: the only one there is. */
#define FAIL(faults, number, ...) error_set(&(faults)->items[(faults)->n++], number, __VA_ARGS__)

/* partial: *ret is set also where there are faults (run_config_load_all). */
static int parse_text(const char *yaml, size_t n, const struct run_config *before, bool partial, struct run_config *ret,
                      struct config_faults *faults)
{
    _cleanup_(yaml_tree_freep) struct yaml_node *root = NULL;
    _cleanup_free_ struct run_config *config = calloc(1, sizeof *config);
    struct run_doubt doubt = {.stage = INT_MAX};
    size_t n_read;
    int r;

    if (!config)
        return FAIL(faults, ENOMEM, "%s: out of memory", faults->name);
    run_config_defaults(config);
    if (before) {
        *config = *before;
        config->n_stages = 0;
    }
    if ((r = yaml_tree_parse(yaml, n, faults->name, &root, &faults->items[0])) < 0) {
        faults->n = 1;
        return r;
    }
    if (root->kind != YAML_MAP)
        return config_error(faults, root, "", "%s is not right here; expected: sections like run:, suite:, stages:",
                            yaml_kind_name(root->kind));
    for (const struct yaml_node *node = root->first; node; node = node->next)
        parse_section(node, config, &doubt, faults);
    n_read = faults->n;
    if (doubt.stage == INT_MAX)
        apply_presets(root, config, faults);
    if (faults->n > n_read)
        doubt.stage = 0;
    if (!config->dir[0])
        snprintf(config->dir, sizeof config->dir, "runs/%s", config->name);
    run_config_check(config, root, before, &doubt, faults);
    if (faults->n && !partial)
        return -EINVAL;
    if (faults->n && !suite_is_read(root, &doubt))
        config->suite[0] = '\0';
    config->n_stages = MIN(config->n_stages, doubt.stage);
    *ret = *config;
    return faults->n ? -EINVAL : 0;
}

int run_config_parse(const char *yaml, size_t n, const char *name, struct run_config *ret, struct error *error)
{
    struct config_faults faults = {.name = name};

    (void)parse_text(yaml, n, NULL, false, ret, &faults);
    return config_first_fault(&faults, error);
}

int run_config_parse_later(const char *yaml, size_t n, const char *name, const struct run_config *run, struct run_config *ret,
                           struct error *error)
{
    struct config_faults faults = {.name = name};

    (void)parse_text(yaml, n, run, false, ret, &faults);
    return config_first_fault(&faults, error);
}

int run_config_load_all(const char *path, struct run_config *ret, struct config_faults *faults)
{
    _cleanup_free_ char *text = NULL;
    size_t n;
    int r = file_read(path, YAML_MAX_BYTES, &text, &n);

    *faults = (struct config_faults) {.name = path};
    if (r == -EFBIG)
        return FAIL(faults, EFBIG, "%s: more than %d bytes; a configuration is smaller", path, YAML_MAX_BYTES);
    if (r < 0)
        return FAIL(faults, -r, "%s: cannot be read: %s", path, strerror(-r));
    return parse_text(text, n, NULL, true, ret, faults);
}

int run_config_load(const char *path, struct run_config *ret, struct error *error)
{
    _cleanup_free_ struct run_config *config = calloc(1, sizeof *config);
    struct config_faults faults;
    int r;

    if (!config)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    r = run_config_load_all(path, config, &faults);
    if (r == 0)
        *ret = *config;
    return config_first_fault(&faults, error);
}

static void write_stage(const struct stage_config *stage, struct strbuf *out)
{
    strbuf_addf(out, "  - %s:\n", stage_kinds[stage->kind].name);
    strbuf_addf(out, "      name: %s\n", stage->name);
    config_write(stage_kinds[stage->kind].table, stage, 6, out);
}

int run_config_write(const struct run_config *config, struct strbuf *out)
{
    for (const struct run_section *section = run_sections; section->name; section++) {
        strbuf_addf(out, "%s:\n", section->name);
        config_write(section->table, config, 2, out);
    }
    if (config->n_stages)
        strbuf_adds(out, "stages:\n");
    for (int i = 0; i < config->n_stages; i++)
        write_stage(&config->stages[i], out);
    return out->failed ? -ENOMEM : 0;
}

int stage_config_write(const struct stage_config *stage, struct strbuf *out)
{
    strbuf_addf(out, "kind: %s\nname: %s\n", stage_kinds[stage->kind].name, stage->name);
    config_write(stage_kinds[stage->kind].table, stage, 0, out);
    return out->failed ? -ENOMEM : 0;
}

int stage_config_parse(const char *text, size_t n, struct stage_config *ret, struct error *error)
{
    _cleanup_(yaml_tree_freep) struct yaml_node *root = NULL;
    struct stage_config stage = {0};
    struct config_faults faults = {.name = "settings"};
    struct yaml_node *kind, named;
    int r;

    if ((r = yaml_tree_parse(text, n, faults.name, &root, error)) < 0)
        return r;
    kind = root->first;
    if (root->kind != YAML_MAP || !kind || strcmp(kind->key, "kind") != 0 || kind->kind != YAML_SCALAR)
        return error_set(error, EINVAL, "settings:1:1: the first line must be kind: STAGE");
    named = *kind;
    named.key = kind->text;
    if (find_kind(&named, "kind", &stage.kind, &faults) < 0)
        return config_first_fault(&faults, error);
    named = *root;
    named.first = kind->next;
    if (parse_stage(&named, stage_kinds[stage.kind].name, &stage, &faults) < 0)
        return config_first_fault(&faults, error);
    *ret = stage;
    return 0;
}
