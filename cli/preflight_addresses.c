/* preflight_addresses.c - could the daemons listen where the configuration says? */
#include <errno.h>

#include "cli/preflight_internal.h"
#include "daemon/http.h"
#include "wire/address.h"
#include "wire/socket.h"

static void no_page(struct http_reply *reply, void *arg) { (void)reply, (void)arg; }

/* The status page's port, by really listening there for a moment. */
static int check_port(const char *address, struct error *error)
{
    static const struct http_route routes[] = {{"/", no_page, true}, {NULL, NULL, false}};
    _cleanup_(loop_freep) struct loop *loop = NULL;
    struct http *http;
    int r = loop_new(&loop);

    if (r < 0)
        return error_set(error, -r, "event loop: %s", strerror(-r));
    r = http_new(loop, address, routes, NULL, &http, error);
    if (r == 0)
        http_free(http);
    return r;
}

/* One address that the configuration names; those that it has named before must be others. */
struct named { char key[48]; const char *address; };

static int check_address_of(const struct named *all, size_t n, bool try, struct error *error)
{
    const struct named *last = &all[n - 1];
    size_t length = strlen(last->address);
    int r;

    if (!length)        /* a socket in the run directory */
        return 0;
    if ((r = address_check(last->address, error)) < 0)
        return error_prefix(error, r, "%s", last->key);
    if (n == 1 && address_is_ipc(last->address))
        return error_set(error, EINVAL, "%s: %s: it is for members on other hosts: tcp://HOST:PORT, or empty", last->key,
                         last->address);
    if (address_is_ipc(last->address))
        return 0;
    for (size_t i = 0; i + 1 < n && last->address[length - 1] != '*'; i++)
        if (!strcmp(all[i].address, last->address))
            return error_set(error, EADDRINUSE, "%s: %s is the address of %s, too: give each its own port", last->key,
                             last->address, all[i].key);
    r = try ? wire_socket_try(last->address, error) : 0;
    return r < 0 ? error_prefix(error, r, "%s", last->key) : 0;
}

static void check_address(const struct named *all, size_t n, bool try, struct config_faults *faults)
{
    struct error error = {0};

    if (check_address_of(all, n, try, &error) < 0)
        config_fault(faults, &error);
}

/* try: could the daemons listen there? Found out before any is started. */
static void check_addresses(const struct run_config *c, bool try, struct config_faults *faults)
{
    const struct { const char *key; const struct server_config *of; int n; } lists[] = {
        {"learners", c->learners, c->n_learners}, {"actors", c->actors, c->n_actors},
        {"prm_servers", c->prm_servers, c->n_prm_servers},
    };
    struct named all[1 + 3 * RUN_MAX_SERVERS] = {{"cluster.listen", c->listen}};
    size_t n = 1;

    check_address(all, n, try, faults);
    for (size_t k = 0; k < ARRAY_SIZE(lists); k++)
        for (int i = 0; i < lists[k].n; i++) {
            snprintf(all[n].key, sizeof all[n].key, "cluster.%s[%d].address", lists[k].key, i);
            all[n++].address = lists[k].of[i].address;
            check_address(all, n, try, faults);
        }
}

void preflight_addresses(const struct run_config *c, struct config_faults *faults) { check_addresses(c, false, faults); }

int preflight_page(const struct run_config *c, struct error *error)
{
    return c->http[0] ? http_address_check(c->http, error) : 0;
}

int preflight_token(const struct run_config *c, struct error *error)
{
    char token[HTTP_TOKEN_MAX + 1];

    return c->http[0] && c->token_file[0] ? http_token_load(c->token_file, token, error) : 0;
}

int preflight_listen(const struct run_config *c, struct error *error)
{
    struct config_faults faults = {0};
    int r;

    check_addresses(c, true, &faults);
    r = config_first_fault(&faults, error);
    if (r >= 0)
        r = preflight_token(c, error);
    return r < 0 || !c->http[0] ? r : check_port(c->http, error);
}
