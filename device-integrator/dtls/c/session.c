/*
 * Sessions over Mbed TLS. The library's own ssl_tls.c is compiled as a part of this file, because
 * a session is restored with functions that are static there.
 *
 * Why not mbedtls_ssl_context_save: it refuses CBC suites, and it ends the session that it saves,
 * but sessions must be written down while they go on. Why no session tickets and no
 * mbedtls_ssl_session_reset: both had advisories after version 3.6.5 (CVE-2026-50585, -50586).
 */
#define MBEDTLS_ALLOW_PRIVATE_ACCESS
#include <ssl_tls.c>

#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

struct dtls_context {
    mbedtls_ssl_config config;
    dtls_callbacks callbacks;
    int suites[9];
};

struct dtls_session {
    mbedtls_ssl_context ssl;
    const dtls_context *context;
    uint64_t now_ms;
    uint64_t intermediate_ms;
    uint64_t final_ms; /* 0: no timer */
    int established;
};

/* What the call in progress was given: callbacks of the configuration know no session. */
static _Thread_local void *current_io;
static _Thread_local const dtls_callbacks *current;

static void enter(dtls_session *session, void *io, uint64_t now_ms)
{
    session->now_ms = now_ms;
    current_io = io;
    current = &session->context->callbacks;
}

static void leave(void)
{
    current_io = NULL;
    current = NULL;
}

int dtls_random(uint8_t *bytes, size_t length)
{
    while (length > 0) {
        ssize_t got = getrandom(bytes, length, 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return MBEDTLS_ERR_SSL_INTERNAL_ERROR;
        }
        bytes += got;
        length -= (size_t) got;
    }
    return 0;
}

static int random_bytes(void *unused, unsigned char *bytes, size_t length)
{
    (void) unused;
    return dtls_random(bytes, length);
}

int dtls_hmac_sha256(const uint8_t key[32], const uint8_t *bytes, size_t length, uint8_t mac[32])
{
    return mbedtls_md_hmac(mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), key, 32, bytes, length,
                           mac);
}

/* The library's own version is plain C: with it 41 % of a handshake was spent here. */
int mbedtls_internal_sha256_process(mbedtls_sha256_context *ctx, const unsigned char data[64])
{
    dtls_sha256_compress(ctx->state, data);
    return 0;
}

static int send_bytes(void *unused, const unsigned char *bytes, size_t length)
{
    (void) unused;
    if (current == NULL) {
        return MBEDTLS_ERR_SSL_INTERNAL_ERROR;
    }
    current->send(current_io, bytes, length);
    return (int) length;
}

static int receive_bytes(void *unused, unsigned char *bytes, size_t room)
{
    (void) unused;
    size_t length = current == NULL ? 0 : current->receive(current_io, bytes, room);
    return length == 0 ? MBEDTLS_ERR_SSL_WANT_READ : (int) length;
}

static int find_key(void *unused, mbedtls_ssl_context *ssl, const unsigned char *identity,
                    size_t length)
{
    uint8_t key[MBEDTLS_PSK_MAX_LEN];
    (void) unused;
    if (current == NULL) {
        return MBEDTLS_ERR_SSL_INTERNAL_ERROR;
    }
    size_t key_length = current->key(current_io, identity, length, key, sizeof(key));
    int result = key_length == 0 ? MBEDTLS_ERR_SSL_INTERNAL_ERROR
                                 : mbedtls_ssl_set_hs_psk(ssl, key, key_length);
    mbedtls_platform_zeroize(key, sizeof(key));
    return result;
}

static void fill_session(mbedtls_ssl_session *session, const dtls_resumption *from)
{
    session->endpoint = MBEDTLS_SSL_IS_SERVER;
    session->tls_version = MBEDTLS_SSL_VERSION_TLS1_2;
    session->ciphersuite = from->suite;
    session->id_len = from->id_length;
    memcpy(session->id, from->id, sizeof(session->id));
    memcpy(session->master, from->master, sizeof(session->master));
    session->encrypt_then_mac = from->encrypt_then_mac;
}

static void describe_session(const mbedtls_ssl_session *session, dtls_resumption *to)
{
    to->suite = (uint16_t) session->ciphersuite;
    to->encrypt_then_mac = (uint8_t) session->encrypt_then_mac;
    to->id_length = (uint8_t) session->id_len;
    memcpy(to->id, session->id, sizeof(to->id));
    memcpy(to->master, session->master, sizeof(to->master));
}

static int recall_session(void *unused, unsigned char const *id, size_t length,
                          mbedtls_ssl_session *session)
{
    dtls_resumption found = { 0 };
    (void) unused;
    if (current == NULL || current->recall(current_io, id, length, &found) != 0) {
        return MBEDTLS_ERR_SSL_CACHE_ENTRY_NOT_FOUND;
    }
    fill_session(session, &found);
    mbedtls_platform_zeroize(&found, sizeof(found));
    return 0;
}

static int remember_session(void *unused, unsigned char const *id, size_t length,
                            const mbedtls_ssl_session *session)
{
    dtls_resumption resumption = { 0 };
    (void) unused;
    (void) id;
    (void) length;
    if (current == NULL) {
        return 0;
    }
    describe_session(session, &resumption);
    current->remember(current_io, &resumption);
    mbedtls_platform_zeroize(&resumption, sizeof(resumption));
    return 0;
}

/* Cookies are made and checked in Rust, before a session exists. */
static int cookie_is_checked(void *unused, const unsigned char *cookie, size_t cookie_length,
                             const unsigned char *id, size_t id_length)
{
    (void) unused;
    (void) cookie;
    (void) cookie_length;
    (void) id;
    (void) id_length;
    return 0;
}

static int cookie_is_never_written(void *unused, unsigned char **to, unsigned char *end,
                                   const unsigned char *id, size_t id_length)
{
    (void) unused;
    (void) to;
    (void) end;
    (void) id;
    (void) id_length;
    return MBEDTLS_ERR_SSL_INTERNAL_ERROR;
}

dtls_context *dtls_context_new(int is_client, const uint16_t *suites, size_t count,
                               const dtls_callbacks *callbacks, size_t cid_length,
                               uint32_t retransmit_first_ms, uint32_t retransmit_last_ms)
{
    dtls_context *context = calloc(1, sizeof(*context));
    if (context == NULL || count >= sizeof(context->suites) / sizeof(context->suites[0])) {
        free(context);
        return NULL;
    }
    context->callbacks = *callbacks;
    for (size_t i = 0; i < count; i++) {
        context->suites[i] = suites[i];
    }
    mbedtls_ssl_config *config = &context->config;
    mbedtls_ssl_config_init(config);
    int endpoint = is_client ? MBEDTLS_SSL_IS_CLIENT : MBEDTLS_SSL_IS_SERVER;
    if (mbedtls_ssl_config_defaults(config, endpoint, MBEDTLS_SSL_TRANSPORT_DATAGRAM,
                                    MBEDTLS_SSL_PRESET_DEFAULT) != 0 ||
        mbedtls_ssl_conf_cid(config, cid_length, MBEDTLS_SSL_UNEXPECTED_CID_IGNORE) != 0) {
        dtls_context_free(context);
        return NULL;
    }
    mbedtls_ssl_conf_rng(config, random_bytes, NULL);
    mbedtls_ssl_conf_ciphersuites(config, context->suites);
    mbedtls_ssl_conf_min_tls_version(config, MBEDTLS_SSL_VERSION_TLS1_2);
    mbedtls_ssl_conf_max_tls_version(config, MBEDTLS_SSL_VERSION_TLS1_2);
    mbedtls_ssl_conf_handshake_timeout(config, retransmit_first_ms, retransmit_last_ms);
    mbedtls_ssl_conf_dtls_anti_replay(config, MBEDTLS_SSL_ANTI_REPLAY_ENABLED);
    mbedtls_ssl_conf_extended_master_secret(config, MBEDTLS_SSL_EXTENDED_MS_ENABLED);
    mbedtls_ssl_conf_encrypt_then_mac(config, MBEDTLS_SSL_ETM_ENABLED);
    if (!is_client) {
        mbedtls_ssl_conf_dtls_cookies(config, cookie_is_never_written, cookie_is_checked, NULL);
        mbedtls_ssl_conf_psk_cb(config, find_key, NULL);
        mbedtls_ssl_conf_session_cache(config, NULL, recall_session, remember_session);
    }
    return context;
}

void dtls_context_free(dtls_context *context)
{
    if (context != NULL) {
        mbedtls_ssl_config_free(&context->config);
        mbedtls_zeroize_and_free(context, sizeof(*context));
    }
}

int dtls_context_set_key(dtls_context *context, const uint8_t *key, size_t key_length,
                         const uint8_t *identity, size_t identity_length)
{
    return mbedtls_ssl_conf_psk(&context->config, key, key_length, identity, identity_length);
}

static void set_timer(void *data, uint32_t intermediate_ms, uint32_t final_ms)
{
    dtls_session *session = data;
    session->intermediate_ms = session->now_ms + intermediate_ms;
    session->final_ms = final_ms == 0 ? 0 : session->now_ms + final_ms;
}

static int timer_state(void *data)
{
    const dtls_session *session = data;
    if (session->final_ms == 0) {
        return -1;
    }
    if (session->now_ms >= session->final_ms) {
        return 2;
    }
    return session->now_ms >= session->intermediate_ms ? 1 : 0;
}

dtls_session *dtls_session_new(const dtls_context *context, const uint8_t *cid)
{
    dtls_session *session = calloc(1, sizeof(*session));
    if (session == NULL) {
        return NULL;
    }
    session->context = context;
    mbedtls_ssl_init(&session->ssl);
    if (mbedtls_ssl_setup(&session->ssl, &context->config) != 0) {
        dtls_session_free(session);
        return NULL;
    }
    mbedtls_ssl_set_timer_cb(&session->ssl, session, set_timer, timer_state);
    mbedtls_ssl_set_bio(&session->ssl, session, send_bytes, receive_bytes, NULL);
    if (cid != NULL && mbedtls_ssl_set_cid(&session->ssl, MBEDTLS_SSL_CID_ENABLED, cid,
                                           context->config.cid_len) != 0) {
        dtls_session_free(session);
        return NULL;
    }
    return session;
}

void dtls_session_free(dtls_session *session)
{
    if (session != NULL) {
        mbedtls_ssl_free(&session->ssl);
        mbedtls_zeroize_and_free(session, sizeof(*session));
    }
}

int dtls_session_resume(dtls_session *session, const dtls_resumption *resumption)
{
    mbedtls_ssl_session from;
    mbedtls_ssl_session_init(&from);
    fill_session(&from, resumption);
    from.endpoint = MBEDTLS_SSL_IS_CLIENT;
    int result = mbedtls_ssl_set_session(&session->ssl, &from);
    mbedtls_ssl_session_free(&from);
    return result;
}

int dtls_session_step(dtls_session *session, void *io, uint64_t now_ms, uint8_t *out, size_t room,
                      size_t *length)
{
    int result;
    enter(session, io, now_ms);
    if (!session->established) {
        result = mbedtls_ssl_handshake(&session->ssl);
        session->established = result == 0;
        leave();
        if (result == 0) {
            return DTLS_ESTABLISHED;
        }
    } else {
        result = mbedtls_ssl_read(&session->ssl, out, room);
        leave();
        if (result >= 0) {
            *length = (size_t) result;
            return DTLS_RECEIVED;
        }
    }
    if (result == MBEDTLS_ERR_SSL_WANT_READ || result == MBEDTLS_ERR_SSL_WANT_WRITE) {
        return DTLS_WAIT;
    }
    /* tinydtls says goodbye with the level "fatal" (RFC 5246, 7.2, leaves the level to the sender),
     * and makes no new session from its port before it has been answered. The alert is decrypted, of
     * two bytes, and still lies there. */
    if (result == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE && session->established &&
        session->ssl.in_msg[1] == MBEDTLS_SSL_ALERT_MSG_CLOSE_NOTIFY) {
        return DTLS_CLOSED;
    }
    return result == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY ? DTLS_CLOSED : result;
}

int dtls_session_write(dtls_session *session, void *io, uint64_t now_ms, const uint8_t *bytes,
                       size_t length)
{
    enter(session, io, now_ms);
    int result = mbedtls_ssl_write(&session->ssl, bytes, length);
    leave();
    return result < 0 ? result : 0;
}

int dtls_session_close(dtls_session *session, void *io, uint64_t now_ms)
{
    enter(session, io, now_ms);
    int result = mbedtls_ssl_close_notify(&session->ssl);
    leave();
    return result;
}

uint64_t dtls_session_timer(const dtls_session *session)
{
    return session->final_ms == 0 ? UINT64_MAX : session->final_ms;
}

int dtls_session_is_over(const dtls_session *session)
{
    return session->established;
}

int dtls_session_expects_finished(const dtls_session *session)
{
    return session->ssl.state == MBEDTLS_SSL_CLIENT_FINISHED;
}

int dtls_session_check(const dtls_session *session, uint8_t *record, size_t length)
{
    int result = mbedtls_ssl_check_record(&session->ssl, record, length);
    return result == MBEDTLS_ERR_SSL_INVALID_MAC ? 1 : result;
}

int dtls_session_holds_flight(const dtls_session *session)
{
    return session->ssl.handshake != NULL;
}

uint64_t dtls_session_window_top(const dtls_session *session)
{
    return session->ssl.in_window_top;
}

uint64_t dtls_session_window(const dtls_session *session)
{
    return session->ssl.in_window;
}

uint64_t dtls_session_out_counter(const dtls_session *session)
{
    return MBEDTLS_GET_UINT64_BE(session->ssl.cur_out_ctr, 0);
}

int dtls_session_save(const dtls_session *session, dtls_snapshot *snapshot)
{
    const mbedtls_ssl_context *ssl = &session->ssl;
    /* As long as the last flight is kept, the transform belongs to the handshake still. */
    const mbedtls_ssl_transform *transform = ssl->transform_in;
    if (!session->established || ssl->session == NULL || transform == NULL) {
        return MBEDTLS_ERR_SSL_BAD_INPUT_DATA;
    }
    memset(snapshot, 0, sizeof(*snapshot));
    snapshot->window_top = ssl->in_window_top;
    snapshot->window = ssl->in_window;
    snapshot->out_counter = dtls_session_out_counter(session);
    snapshot->suite = (uint16_t) ssl->session->ciphersuite;
    snapshot->encrypt_then_mac = (uint8_t) ssl->session->encrypt_then_mac;
    memcpy(snapshot->master, ssl->session->master, sizeof(snapshot->master));
    memcpy(snapshot->randoms, transform->randbytes, sizeof(snapshot->randoms));
    snapshot->in_cid_length = transform->in_cid_len;
    snapshot->out_cid_length = transform->out_cid_len;
    memcpy(snapshot->in_cid, transform->in_cid, transform->in_cid_len);
    memcpy(snapshot->out_cid, transform->out_cid, transform->out_cid_len);
    return 0;
}

/* The inverse of dtls_session_save, in the layout that the library reads: built here from fields
 * of known length, never from stored bytes. */
static int restore_into(mbedtls_ssl_context *ssl, const dtls_snapshot *snapshot)
{
    uint8_t blob[512];
    uint8_t *p = blob;
    uint8_t *const end = blob + sizeof(blob);
    size_t session_length = 0;
    mbedtls_ssl_session session;
    dtls_resumption fields = { .suite = snapshot->suite,
                               .encrypt_then_mac = snapshot->encrypt_then_mac };

    memcpy(fields.master, snapshot->master, sizeof(fields.master));
    mbedtls_ssl_session_init(&session);
    fill_session(&session, &fields);
    session.endpoint = (uint8_t) ssl->conf->endpoint;
    memcpy(p, ssl_serialized_context_header, sizeof(ssl_serialized_context_header));
    p += sizeof(ssl_serialized_context_header);
    int result = ssl_session_save(&session, 1, p + 4, (size_t) (end - p) - 200, &session_length);
    mbedtls_platform_zeroize(&session, sizeof(session));
    mbedtls_platform_zeroize(&fields, sizeof(fields));
    if (result != 0) {
        mbedtls_platform_zeroize(blob, sizeof(blob));
        return result;
    }
    MBEDTLS_PUT_UINT32_BE(session_length, p, 0);
    p += 4 + session_length;
    memcpy(p, snapshot->randoms, sizeof(snapshot->randoms));
    p += sizeof(snapshot->randoms);
    *p++ = snapshot->in_cid_length;
    memcpy(p, snapshot->in_cid, snapshot->in_cid_length);
    p += snapshot->in_cid_length;
    *p++ = snapshot->out_cid_length;
    memcpy(p, snapshot->out_cid, snapshot->out_cid_length);
    p += snapshot->out_cid_length;
    MBEDTLS_PUT_UINT32_BE(0, p, 0); /* records with a wrong MAC so far */
    MBEDTLS_PUT_UINT64_BE(snapshot->window_top, p, 4);
    MBEDTLS_PUT_UINT64_BE(snapshot->window, p, 12);
    p[20] = 0; /* packing of datagrams stays on */
    MBEDTLS_PUT_UINT64_BE(snapshot->out_counter, p, 21);
    MBEDTLS_PUT_UINT16_BE(0, p, 29); /* no limit to the size of a datagram but the buffer's */
    p += 31;
    result = ssl_context_load(ssl, blob, (size_t) (p - blob));
    mbedtls_platform_zeroize(blob, sizeof(blob));
    return result;
}

dtls_session *dtls_session_restore(const dtls_context *context, const dtls_snapshot *snapshot)
{
    if (snapshot->in_cid_length > MBEDTLS_SSL_CID_IN_LEN_MAX ||
        snapshot->out_cid_length > MBEDTLS_SSL_CID_OUT_LEN_MAX ||
        mbedtls_ssl_ciphersuite_from_id(snapshot->suite) == NULL) {
        return NULL;
    }
    dtls_session *session = dtls_session_new(context, NULL);
    if (session == NULL) {
        return NULL;
    }
    if (restore_into(&session->ssl, snapshot) != 0) {
        dtls_session_free(session);
        return NULL;
    }
    session->established = 1;
    return session;
}

int dtls_session_resumption(const dtls_session *session, dtls_resumption *resumption)
{
    if (!session->established || session->ssl.session == NULL ||
        session->ssl.session->id_len == 0) {
        return MBEDTLS_ERR_SSL_BAD_INPUT_DATA;
    }
    memset(resumption, 0, sizeof(*resumption));
    describe_session(session->ssl.session, resumption);
    return 0;
}
