/*
 * What this crate compiles of Mbed TLS: DTLS 1.2 with pre-shared keys, and nothing else. No
 * certificates, no big numbers, no files, no renegotiation, no session tickets.
 */
#ifndef DTLS_MBEDTLS_CONFIG_H
#define DTLS_MBEDTLS_CONFIG_H

/* The C library has malloc, memcpy and threads; AES runs on the processor's instructions. */
#define MBEDTLS_HAVE_ASM
#define MBEDTLS_PLATFORM_C

/* Suites: 0xC0A8 and 0xC0A4 (CCM), 0x00A8 (GCM), 0x00AE (CBC with SHA-256). */
#define MBEDTLS_KEY_EXCHANGE_PSK_ENABLED
#define MBEDTLS_AES_C
#if defined(__x86_64__)
#define MBEDTLS_AESNI_C
#elif defined(__aarch64__)
#define MBEDTLS_AESCE_C
#endif
#define MBEDTLS_CCM_C
#define MBEDTLS_GCM_C
#define MBEDTLS_CIPHER_C
#define MBEDTLS_CIPHER_MODE_CBC
#define MBEDTLS_MD_C
#define MBEDTLS_SHA256_C
/* The blocks are hashed in Rust, with the processor's instructions: see session.c. */
#define MBEDTLS_SHA256_PROCESS_ALT

/* The protocol. */
#define MBEDTLS_SSL_TLS_C
#define MBEDTLS_SSL_SRV_C
#define MBEDTLS_SSL_CLI_C
#define MBEDTLS_SSL_PROTO_TLS1_2
#define MBEDTLS_SSL_PROTO_DTLS
#define MBEDTLS_SSL_ALL_ALERT_MESSAGES
#define MBEDTLS_SSL_DTLS_HELLO_VERIFY
#define MBEDTLS_SSL_DTLS_ANTI_REPLAY
#define MBEDTLS_SSL_RECORD_CHECKING
#define MBEDTLS_SSL_DTLS_CONNECTION_ID
#define MBEDTLS_SSL_DTLS_CONNECTION_ID_COMPAT 0
#define MBEDTLS_SSL_EXTENDED_MASTER_SECRET
#define MBEDTLS_SSL_ENCRYPT_THEN_MAC
#define MBEDTLS_SSL_CONTEXT_SERIALIZATION
#define MBEDTLS_SSL_KEEP_PEER_CERTIFICATE

/* RFC 9146 allows up to 255 bytes; ours have 8, and no stack in use offers more than 20. */
#define MBEDTLS_SSL_CID_IN_LEN_MAX 8
#define MBEDTLS_SSL_CID_OUT_LEN_MAX 32
/* No padding of records with a connection ID: the length of telemetry is no secret. */
#define MBEDTLS_SSL_CID_TLS1_3_PADDING_GRANULARITY 1

/* Keys given by customers have up to 256 characters. */
#define MBEDTLS_PSK_MAX_LEN 256

/* A CoAP message has at most 1,280 bytes (RFC 7252 section 4.6: 1,152). */
#define MBEDTLS_SSL_IN_CONTENT_LEN 2048
#define MBEDTLS_SSL_OUT_CONTENT_LEN 2048
/* Fragments of one flight that may wait: a flight of a PSK client has under 600 bytes. */
#define MBEDTLS_SSL_DTLS_MAX_BUFFERING 4096

#endif
