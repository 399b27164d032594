/* socket.h - ROUTER and DEALER sockets with the options that the wire relies on. Internal to server.c and client.c, but for the
 * try. */
#pragma once

#include "wire/wire.h"

/* A bound ROUTER. ret_address (ADDRESS_MAX bytes) is the address with the port filled in. */
int wire_socket_bind(struct wire *wire, const char *address, unsigned credits, uint32_t frame_max, void **ret_socket,
                     char *ret_address, struct error *error);

/* A connecting DEALER: what cannot be sent now is not queued (-EAGAIN). handshake_ms: one that takes longer is broken off. */
int wire_socket_connect(struct wire *wire, const char *address, const char *server_key, uint32_t handshake_ms, void **ret_socket,
                        struct error *error);

/* Could somebody listen on this tcp:// address, here and now? By doing so for a moment. Errors as of wire_socket_bind. */
int wire_socket_try(const char *address, struct error *error);
