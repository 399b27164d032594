/* cmd_compare.c - `gantry compare RUN RUN...`: in what runs differ, and what came of each, as a table and a page. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>

#include "base/atomic_file.h"
#include "cli/cli.h"
#include "cli/compare.h"

#define USUAL "last"            /* nobody asked for it: a run without a test is compared all the same */

static int usage(FILE *out, int status)
{
    fprintf(out,
            "usage: gantry compare RUN RUN... [options]\n"
            "In what runs differ, and what came of each: a table here, and a page with every curve of all runs in\n"
            "one frame. The runs must have ended, or be drained, wherever they are in their stages. Those that\n"
            "differ in their seed alone are one arm of an experiment: arms are compared, too, and have a curve\n"
            "each, the mean of their seeds. More than %d runs (at most %d) are shown by their arms.\n"
            "  -o FILE.html     the page (compare.html in the current directory); - for none\n"
            "  --policy NAME    whose test is compared, state by state, with the first run's: sft, best, last,\n"
            "                   or what else their eval stages name (last)\n"
            "  --json           as JSON on stdout in place of the table, and no page unless -o names one\n",
            COMPARE_COLUMNS, COMPARE_MAX);
    return status;
}

static int write_page(const struct comparison *c, const char *path, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf page = STRBUF_INIT;
    int r = comparison_page(c, &page);

    if (r < 0)
        return error_set(error, -r, "%s: out of memory for the page", path);
    r = atomic_file_write_through(path, page.text, page.length);
    return r < 0 ? error_set(error, -r, "%s: cannot be written: %s; -o names another place", path, strerror(-r)) : 0;
}

static int run(const char *const *dirs, int n, const char *policy, const char *path, bool json, struct error *error)
{
    _cleanup_(comparison_release) struct comparison c = {0};
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    int r = comparison_load(dirs, n, policy, &c, error);

    if (r == 0 && strcmp(policy, USUAL) != 0)
        r = comparison_has_policy(&c, error);
    if (r < 0)
        return r;
    if ((r = json ? comparison_json(&c, &text) : comparison_print(&c, &text)) < 0)
        return error_set(error, -r, "out of memory");
    fputs(text.text, stdout);
    if (!path)
        return 0;
    if ((r = write_page(&c, path, error)) == 0 && !json)
        printf("\n%s\n", path);
    return r;
}

int cmd_compare(int argc, char **argv)
{
    static const struct option options[] = {{"policy", required_argument, NULL, 'p'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"output", required_argument, NULL, 'o'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char *policy = USUAL, *path = NULL;
    struct error error = {0};
    bool json = false;
    int option, n, r;

    while ((option = getopt_long(argc, argv, "o:h", options, NULL)) >= 0)
        switch (option) {
        case 'p': policy = optarg; break;
        case 'o': path = optarg; break;
        case 'j': json = true; break;
        case 'h': return usage(stdout, CLI_OK);
        default: return usage(stderr, CLI_USAGE);
        }
    n = argc - optind;
    if (n < 2 || n > COMPARE_MAX) {
        fprintf(stderr, "gantry compare: %d runs are named; 2 to %d can be compared\n", n, COMPARE_MAX);
        return usage(stderr, CLI_USAGE);
    }
    if (!path && !json)
        path = "compare.html";
    if (path && !strcmp(path, "-"))
        path = NULL;
    r = run((const char *const *)argv + optind, n, policy, path, json, &error);
    if (r < 0)
        fprintf(stderr, "gantry compare: %s\n", error_text(&error, r));
    return r < 0 ? CLI_FAILED : CLI_OK;
}
