/* bddl.c - text -> tree of lists with line numbers -> problem. */
#include "sim/suites/libero/bddl.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"

enum { MAX_TEXT = 1 << 20, MAX_NODES = 20000, MAX_DEPTH = 32 };

const char *const bddl_predicate_name[BDDL_PREDICATES] = { "on", "in", "open", "close", "turnon", "turnoff", "up" };

/* A word, or a list of nodes (first child, next sibling). */
struct node {
    char *word;                 /* NULL: a list */
    int line;
    struct node *first, *next;
};

struct reader {
    const char *name;
    char *text;                 /* lower-cased copy; words point into it */
    size_t n, at;
    int line;
    struct node *nodes;
    int room, used;
    struct error *error;
};

static int bad(const struct reader *p, int line, const char *what)
{
    return error_set(p->error, EINVAL, "%s: line %d: %s", p->name, line, what);
}

static int bad_word(const struct reader *p, int line, const char *what, const char *word)
{
    return error_set(p->error, EINVAL, "%s: line %d: %s '%.60s'", p->name, line, what, word);
}

/* ---- lists ---------------------------------------------------------------------------------------------- */

static void skip_blank(struct reader *p)
{
    for (; p->at < p->n; p->at++) {
        if (p->text[p->at] == ';')
            while (p->at < p->n && p->text[p->at] != '\n')
                p->at++;
        if (p->at == p->n || !isspace((unsigned char)p->text[p->at]))
            return;
        p->line += p->text[p->at] == '\n';
    }
}

static bool ends_word(char c) { return isspace((unsigned char)c) || c == '(' || c == ')' || c == ';'; }

/* One word or list. Words end where the next token begins: their NUL is written when that token has been read. */
static int read_node(struct reader *p, int depth, struct node **ret)
{
    struct node *node, **tail;
    int r;

    if (depth > MAX_DEPTH || p->used == p->room)
        return bad(p, p->line, "lists nested too deep or too many words");
    node = &p->nodes[p->used++];
    *node = (struct node) { .line = p->line };
    *ret = node;
    if (p->text[p->at] != '(') {
        size_t from = p->at;

        while (p->at < p->n && !ends_word(p->text[p->at]))
            p->at++;
        node->word = text_copy(p->text + from, p->at - from);
        return node->word ? 0 : error_set(p->error, ENOMEM, "%s: out of memory", p->name);
    }
    p->at++;
    for (tail = &node->first;; tail = &(*tail)->next) {
        skip_blank(p);
        if (p->at == p->n)
            return bad(p, node->line, "the parenthesis opened here is never closed");
        if (p->text[p->at] == ')') {
            p->at++;
            return 0;
        }
        r = read_node(p, depth + 1, tail);
        if (r < 0)
            return r;
    }
}

static int read_tree(struct reader *p, struct node **ret)
{
    int r;

    skip_blank(p);
    if (p->at == p->n || p->text[p->at] != '(')
        return bad(p, p->line, "expected '('");
    r = read_node(p, 0, ret);
    if (r < 0)
        return r;
    skip_blank(p);
    if (p->at < p->n)
        return bad(p, p->line, p->text[p->at] == ')' ? "a ')' without its '('" : "something behind the last ')'");
    return 0;
}

static bool is_word(const struct node *node, const char *word)
{
    return node && node->word && strcmp(node->word, word) == 0;
}

static int count(const struct node *list)
{
    int n = 0;

    for (const struct node *i = list->first; i; i = i->next)
        n++;
    return n;
}

/* ---- groups --------------------------------------------------------------------------------------------- */

static int dup_word(const struct reader *p, const struct node *node, char **ret)
{
    if (!node || !node->word)
        return bad(p, node ? node->line : p->line, "a name was expected, not a list");
    *ret = strdup(node->word);
    return *ret ? 0 : error_set(p->error, ENOMEM, "%s: out of memory", p->name);
}

/* n numbers of a list. "pi" is known, as in the original. */
static int read_numbers(const struct reader *p, const struct node *list, int n, double *ret)
{
    const struct node *item;
    int i = 0;

    if (!list || list->word || count(list) != n)
        return error_set(p->error, EINVAL, "%s: line %d: a list of %d numbers was expected", p->name, list ? list->line : p->line,
                         n);
    for (item = list->first; item; item = item->next, i++) {
        char *end;

        if (!item->word)
            return bad(p, item->line, "a number was expected, not a list");
        ret[i] = strcmp(item->word, "pi") == 0 ? M_PI : strcmp(item->word, "-pi") == 0 ? -M_PI : strtod(item->word, &end);
        if (strstr(item->word, "pi") ? strcmp(item->word, "pi") != 0 && strcmp(item->word, "-pi") != 0 :
                                       *end != '\0' || end == item->word || !isfinite(ret[i]))
            return bad_word(p, item->line, "not a number:", item->word);
    }
    return 0;
}

/* ((a b c d)): exactly one inner list. */
static int read_inner(const struct reader *p, const struct node *list, int n, double *ret)
{
    if (!list || list->word || count(list) != 1)
        return bad(p, list ? list->line : p->line, "exactly one list of numbers was expected");
    return read_numbers(p, list->first, n, ret);
}

static int read_attribute(const struct reader *p, const struct node *list, struct bddl_region *region)
{
    const struct node *key = list->first, *value = key ? key->next : NULL;
    int r;

    if (!key || !key->word || !value || value->next)
        return bad(p, list->line,
                   "expected (:target NAME), (:ranges ((x0 y0 x1 y1))), (:yaw_rotation ((a b))) or (:rgba (r g b a))");
    if (is_word(key, ":target"))
        return region->target ? bad(p, key->line, "a second :target") : dup_word(p, value, &region->target);
    if (is_word(key, ":ranges")) {
        r = read_inner(p, value, 4, region->range);
        if (r == 0 && (region->range[2] < region->range[0] || region->range[3] < region->range[1]))
            return bad(p, value->line, ":ranges: x1 < x0 or y1 < y0");
        region->has_range = true;
        return r;
    }
    if (is_word(key, ":yaw_rotation"))
        return read_inner(p, value, 2, region->yaw);
    if (is_word(key, ":rgba"))
        return read_numbers(p, value, 4, region->rgba);
    return bad_word(p, key->line, "unknown attribute of a region:", key->word);
}

static int read_region(const struct reader *p, const struct node *list, struct bddl_problem *problem)
{
    struct bddl_region *region;
    int r = 0;

    if (list->word || !list->first || !list->first->word)
        return bad(p, list->line, "a region must be (name (:target ...) ...)");
    if (problem->n_regions == BDDL_MAX)
        return bad(p, list->line, "more than 64 regions");
    region = &problem->regions[problem->n_regions++];
    region->rgba[2] = 1;
    for (const struct node *a = list->first->next; a && r == 0; a = a->next)
        r = a->word ? bad_word(p, a->line, "a list was expected, not", a->word) : read_attribute(p, a, region);
    if (r < 0)
        return r;
    if (!region->target)
        return bad_word(p, list->line, "a region without (:target NAME):", list->first->word);
    if (asprintf(&region->name, "%s_%s", region->target, list->first->word) < 0) {
        region->name = NULL;
        return error_set(p->error, ENOMEM, "%s: out of memory", p->name);
    }
    return 0;
}

/* name... - category name... - category */
static int read_things(const struct reader *p, const struct node *group, struct bddl_thing *things, int *n)
{
    int first = *n, r = 0;

    for (const struct node *item = group->first->next; item && r == 0; item = item->next) {
        if (is_word(item, "-")) {
            item = item->next;
            if (!item || first == *n)
                return bad(p, group->line, "'-' must stand between names and their category");
            for (int i = 0; i < first; i++)
                if (item->word && strcmp(things[i].category, item->word) == 0)
                    return bad_word(p, item->line, "a category named twice:", item->word);
            for (; first < *n && r == 0; first++)
                r = dup_word(p, item, &things[first].category);
            continue;
        }
        if (*n == BDDL_MAX)
            return bad(p, item->line, "more than 64 names");
        r = dup_word(p, item, &things[*n].name);
        *n += r == 0;
    }
    return r < 0 ? r : first < *n ? bad(p, group->line, "names without '- category'") : 0;
}

static int read_statement(const struct reader *p, const struct node *list, struct bddl_statement *statements, int *n)
{
    struct bddl_statement *statement = &statements[*n];
    int k, words = list->word ? 0 : count(list), r;

    if (words < 2 || words > 3 || !list->first->word)
        return bad(p, list->line, "expected (predicate name) or (predicate name name)");
    if (*n == BDDL_MAX)
        return bad(p, list->line, "more than 64 statements");
    for (k = 0; k < BDDL_PREDICATES; k++)
        if (is_word(list->first, bddl_predicate_name[k]))
            break;
    if (k == BDDL_PREDICATES)
        return error_set(p->error, EINVAL, "%s: line %d: unknown predicate '%.60s'; known: on in open close turnon turnoff up",
                         p->name, list->line, list->first->word);
    if ((k == BDDL_ON || k == BDDL_IN) != (words == 3))
        return error_set(p->error, EINVAL, "%s: line %d: %s takes %s", p->name, list->line, bddl_predicate_name[k],
                         k == BDDL_ON || k == BDDL_IN ? "two names" : "one name");
    ++*n;
    *statement = (struct bddl_statement) { .predicate = (enum bddl_predicate)k, .line = list->line };
    r = dup_word(p, list->first->next, &statement->first);
    return r < 0 || words == 2 ? r : dup_word(p, list->first->next->next, &statement->second);
}

/* (and S...) or S. */
static int read_goal(const struct reader *p, const struct node *group, struct bddl_problem *problem)
{
    const struct node *goal = group->first->next;
    int r = 0;

    if (!goal || goal->word || goal->next)
        return bad(p, group->line, ":goal must hold one list");
    if (!is_word(goal->first, "and"))
        return read_statement(p, goal, problem->goal, &problem->n_goal);
    for (const struct node *s = goal->first->next; s && r == 0; s = s->next)
        r = read_statement(p, s, problem->goal, &problem->n_goal);
    return r < 0 ? r : problem->n_goal ? 0 : bad(p, goal->line, "an empty goal");
}

static int read_language(const struct reader *p, const struct node *group, struct bddl_problem *problem)
{
    _cleanup_(strbuf_release) struct strbuf words = STRBUF_INIT;

    for (const struct node *w = group->first->next; w; w = w->next) {
        if (!w->word)
            return bad(p, w->line, ":language holds words only");
        strbuf_addf(&words, "%s%s", words.length ? " " : "", w->word);
    }
    free(problem->language);
    problem->language = strbuf_detach(&words);
    return problem->language ? 0 : error_set(p->error, ENOMEM, "%s: out of memory", p->name);
}

static int read_group(const struct reader *p, const struct node *group, struct bddl_problem *problem)
{
    const struct node *key = group->word ? NULL : group->first;
    int r = 0;

    if (!key || !key->word)
        return bad(p, group->line, "expected a group such as (:objects ...)");
    if (is_word(key, "problem"))
        return problem->problem ? bad(p, key->line, "a second (problem NAME)")
                                : dup_word(p, key->next ? key->next : group, &problem->problem);
    if (is_word(key, ":domain"))
        return is_word(key->next, "robosuite") ? 0 : bad(p, key->line, "the domain must be robosuite");
    if (is_word(key, ":language"))
        return read_language(p, group, problem);
    if (is_word(key, ":fixtures"))
        return read_things(p, group, problem->fixtures, &problem->n_fixtures);
    if (is_word(key, ":objects"))
        return read_things(p, group, problem->objects, &problem->n_objects);
    if (is_word(key, ":obj_of_interest") || is_word(key, ":requirements"))
        return 0;
    if (is_word(key, ":goal"))
        return read_goal(p, group, problem);
    if (is_word(key, ":regions"))
        for (const struct node *i = key->next; i && r == 0; i = i->next)
            r = read_region(p, i, problem);
    else if (is_word(key, ":init"))
        for (const struct node *i = key->next; i && r == 0; i = i->next)
            r = read_statement(p, i, problem->init, &problem->n_init);
    else
        return bad_word(p, key->line, "unknown group", key->word);
    return r;
}

/* ---- names must mean something ----------------------------------------------------------------------------- */

static bool is_thing(const struct bddl_problem *problem, const char *name)
{
    for (int i = 0; i < problem->n_objects; i++)
        if (strcmp(problem->objects[i].name, name) == 0)
            return true;
    for (int i = 0; i < problem->n_fixtures; i++)
        if (strcmp(problem->fixtures[i].name, name) == 0)
            return true;
    return false;
}

/* A region may stand on something that is not there (libero_goal's drainer), as long as nothing speaks of it. */
static int check_names(const struct reader *p, const struct bddl_problem *problem, const struct bddl_statement *s, int n)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 2; k++) {
            const char *name = k ? s[i].second : s[i].first;
            const struct bddl_region *region = name ? bddl_region(problem, name) : NULL;

            if (name && !is_thing(problem, region ? region->target : name))
                return bad_word(p, s[i].line, "no object, fixture or region of one is called", name);
        }
    return 0;
}

static int check(const struct reader *p, const struct bddl_problem *problem)
{
    int r;

    if (!problem->problem || !problem->n_goal || !problem->n_objects)
        return error_set(p->error, EINVAL, "%s: (problem NAME), (:objects ...) and (:goal ...) must be there", p->name);
    r = check_names(p, problem, problem->init, problem->n_init);
    return r < 0 ? r : check_names(p, problem, problem->goal, problem->n_goal);
}

static int read_problem(struct reader *p, struct bddl_problem *problem)
{
    struct node *tree;
    int r = read_tree(p, &tree);

    if (r < 0)
        return r;
    if (!is_word(tree->first, "define"))
        return bad(p, tree->line, "expected (define (problem ...) ...)");
    for (const struct node *group = tree->first->next; group && r == 0; group = group->next)
        r = read_group(p, group, problem);
    return r < 0 ? r : check(p, problem);
}

int bddl_parse(const char *name, const char *text, size_t n, struct bddl_problem **ret, struct error *error)
{
    _cleanup_(bddl_freep) struct bddl_problem *problem = calloc(1, sizeof(*problem));
    struct reader p = { .name = name, .n = n, .line = 1, .error = error };
    int r;

    if (n > MAX_TEXT)
        return error_set(error, EFBIG, "%s: more than 1 MB of text", name);
    p.text = malloc(n + 1);
    p.room = (int)MIN(n + 1, (size_t)MAX_NODES);        /* every node takes a character at least */
    p.nodes = malloc(sizeof(*p.nodes) * (size_t)p.room);
    if (problem)
        problem->file = strdup(name);
    if (problem && problem->file && p.text && p.nodes) {
        for (size_t i = 0; i < n; i++)
            p.text[i] = text[i] ? (char)tolower((unsigned char)text[i]) : ' ';
        r = read_problem(&p, problem);
    } else {
        r = error_set(error, ENOMEM, "%s: out of memory", name);
    }
    for (int i = 0; i < p.used; i++)
        free(p.nodes[i].word);
    free(p.nodes);
    free(p.text);
    if (r == 0)
        *ret = TAKE_PTR(problem);
    return r;
}

int bddl_read(const char *path, struct bddl_problem **ret, struct error *error)
{
    _cleanup_free_ char *text = NULL;
    size_t n;
    int r = file_read(path, MAX_TEXT, &text, &n);

    if (r < 0)
        return error_set(error, -r, "%s: %s", path, strerror(-r));
    return bddl_parse(path, text, n, ret, error);
}

struct bddl_problem *bddl_free(struct bddl_problem *problem)
{
    if (!problem)
        return NULL;
    for (int i = 0; i < BDDL_MAX; i++) {
        free(problem->objects[i].name);
        free(problem->objects[i].category);
        free(problem->fixtures[i].name);
        free(problem->fixtures[i].category);
        free(problem->regions[i].name);
        free(problem->regions[i].target);
        free(problem->init[i].first);
        free(problem->init[i].second);
        free(problem->goal[i].first);
        free(problem->goal[i].second);
    }
    free(problem->file);
    free(problem->problem);
    free(problem->language);
    free(problem);
    return NULL;
}

const struct bddl_region *bddl_region(const struct bddl_problem *problem, const char *name)
{
    for (int i = 0; i < problem->n_regions; i++)
        if (strcmp(problem->regions[i].name, name) == 0)
            return &problem->regions[i];
    return NULL;
}
