/* limits.h - what no message may exceed, whoever sends it. Checked before anything is parsed. */
#pragma once

enum {
    WIRE_PROTOCOL_MAJOR = 1,            /* differs: refused, with both numbers in the text */
    WIRE_PROTOCOL_MINOR = 6,            /* fields may be added; unknown ones are ignored */

    WIRE_ENVELOPE_MAX = 8 << 10,        /* bytes of frame 0 */
    WIRE_ERROR_MAX = 512,               /* bytes of Envelope.error, NUL included */
    WIRE_PARTS_MAX = 256,               /* frames behind the body (kinds.c has a tighter figure for each kind) */
    WIRE_FRAME_MAX = 256 << 20,         /* bytes of any frame: ZMQ_MAXMSGSIZE, unless a server asks for less */
    WIRE_BODY_MAX = 16 << 20,           /* bytes of any body */
    WIRE_CHUNK = 4 << 20,               /* weights travel in chunks of this size */

    WIRE_CREDITS = 64,                  /* requests a client may have outstanding at a server, unless said otherwise */
    WIRE_PEERS_MAX = 8192,              /* connections a server keeps */
    WIRE_HEARTBEAT_MS = 1000,           /* a silent client pings this often */
    WIRE_SILENT_MS = 5000,              /* nothing heard for so long: the other side is gone */
    WIRE_HANDSHAKE_FIRST_MS = 2500,     /* a client breaks a handshake off after so long, ... */
    WIRE_HANDSHAKE_MOST_MS = 10000,     /* ... the next one after twice as long, up to this, and so do servers */
    WIRE_LINGER_MS = 500,               /* how long a closing socket tries to get rid of its last messages */
};

#define WIRE_PROTOCOL ((uint32_t)WIRE_PROTOCOL_MAJOR << 16 | (uint32_t)WIRE_PROTOCOL_MINOR)
