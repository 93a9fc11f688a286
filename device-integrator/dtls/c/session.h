/*
 * The narrow way into Mbed TLS: opaque pointers, plain structures, bytes. What Rust sees of it is
 * declared once more in src/ffi.rs; both must agree.
 */
#ifndef DTLS_SESSION_H
#define DTLS_SESSION_H

#include <stddef.h>
#include <stdint.h>

enum {
    DTLS_WAIT = 0,        /* wants another datagram or its timer */
    DTLS_ESTABLISHED = 1, /* the handshake has just ended well */
    DTLS_RECEIVED = 2,    /* out holds the bytes of one record */
    DTLS_CLOSED = 3,      /* the peer said close_notify */
};

/* Everything that a session of TLS 1.2 is made of. */
typedef struct {
    uint64_t window_top;
    uint64_t window;
    uint64_t out_counter; /* epoch in the upper 16 bits */
    uint16_t suite;
    uint8_t encrypt_then_mac;
    uint8_t in_cid_length;
    uint8_t out_cid_length;
    uint8_t master[48];
    uint8_t randoms[64];
    uint8_t in_cid[32];
    uint8_t out_cid[32];
} dtls_snapshot;

/* What an abbreviated handshake starts from. */
typedef struct {
    uint16_t suite;
    uint8_t encrypt_then_mac;
    uint8_t id_length;
    uint8_t id[32];
    uint8_t master[48];
} dtls_resumption;

/* What Rust does for the library; io is what the call in progress was given. */
typedef struct {
    int (*send)(void *io, const uint8_t *bytes, size_t length);
    /* Bytes of the one datagram, or 0: none. */
    size_t (*receive)(void *io, uint8_t *bytes, size_t room);
    /* Length of the key of an identity; 0 refuses. */
    size_t (*key)(void *io, const uint8_t *identity, size_t length, uint8_t *key, size_t room);
    int (*recall)(void *io, const uint8_t *id, size_t length, dtls_resumption *found);
    void (*remember)(void *io, const dtls_resumption *resumption);
} dtls_callbacks;

typedef struct dtls_context dtls_context;
typedef struct dtls_session dtls_session;

dtls_context *dtls_context_new(int is_client, const uint16_t *suites, size_t count,
                               const dtls_callbacks *callbacks, size_t cid_length,
                               uint32_t retransmit_first_ms, uint32_t retransmit_last_ms);
void dtls_context_free(dtls_context *context);
int dtls_context_set_key(dtls_context *context, const uint8_t *key, size_t key_length,
                         const uint8_t *identity, size_t identity_length);

/* cid: our connection ID, as long as the context says, or NULL: none is offered or taken. */
dtls_session *dtls_session_new(const dtls_context *context, const uint8_t *cid);
void dtls_session_free(dtls_session *session);
int dtls_session_resume(dtls_session *session, const dtls_resumption *resumption);
int dtls_session_step(dtls_session *session, void *io, uint64_t now_ms, uint8_t *out, size_t room,
                      size_t *length);
int dtls_session_write(dtls_session *session, void *io, uint64_t now_ms, const uint8_t *bytes,
                       size_t length);
int dtls_session_close(dtls_session *session, void *io, uint64_t now_ms);
/* When the retransmission timer ends, or UINT64_MAX. */
uint64_t dtls_session_timer(const dtls_session *session);
int dtls_session_is_over(const dtls_session *session);
int dtls_session_expects_finished(const dtls_session *session);
/* 0: authentic; 1: of another key, or changed; otherwise not for this session. Wipes the bytes. */
int dtls_session_check(const dtls_session *session, uint8_t *record, size_t length);
int dtls_session_holds_flight(const dtls_session *session);
uint64_t dtls_session_window_top(const dtls_session *session);
uint64_t dtls_session_window(const dtls_session *session);
uint64_t dtls_session_out_counter(const dtls_session *session);
int dtls_session_save(const dtls_session *session, dtls_snapshot *snapshot);
dtls_session *dtls_session_restore(const dtls_context *context, const dtls_snapshot *snapshot);
int dtls_session_resumption(const dtls_session *session, dtls_resumption *resumption);

/* Defined in Rust: one block of 64 bytes into the eight words of a hash. */
void dtls_sha256_compress(uint32_t state[8], const uint8_t block[64]);

int dtls_random(uint8_t *bytes, size_t length);
int dtls_hmac_sha256(const uint8_t key[32], const uint8_t *bytes, size_t length, uint8_t mac[32]);

#endif
