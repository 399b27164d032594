/* member_keys.h - where a daemon's keys come from: its command line, and files beside the one that names.
 *
 *   --key DIR/NAME.key      our secret. DIR/coordinator.pub: whom to expect at --join tcp://... (an endpoint file says it itself)
 *
 * A server that listens on tcp also needs the list of those let in: RUN/keys/allowed when --run-dir has it (looked at before
 * every message), otherwise what the coordinator says (member.h).
 *
 * Failure rule: one line that names what is missing and how to make it; a daemon ends with EX_CONFIG then, since to start it
 * again with the same files would not help. Thread rule: the loop's thread. */
#pragma once

#include "wire/wire.h"

struct member_keys_options {    /* any may be NULL */
    const char *key;            /* --key */
    const char *join, *listen, *run_dir;
};

/* Without --key: nothing to do, or -EACCES when join or listen is tcp. ret_server_key: for member_options, maybe "". */
int member_keys_load(struct wire *wire, const struct member_keys_options *options, char ret_server_key[41], struct error *error);
