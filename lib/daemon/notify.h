/* notify.h - what a service tells systemd: sd_notify(3) over $NOTIFY_SOCKET, without the library.
 *
 * Nothing happens, and 0 is returned, when nobody listens. */
#pragma once

#include <stdint.h>

#include "base/macro.h"

/* "READY=1", "STOPPING=1", "WATCHDOG=1", "STATUS=...". One datagram. -errno if it could not be sent. */
int notify_send(const char *state);
int notify_status(const char *format, ...) _printf_(1, 2);

/* How often WATCHDOG=1 is due: half of WATCHDOG_USEC; 0: no watchdog (or it is meant for another process). */
uint64_t notify_watchdog_ms(void);
