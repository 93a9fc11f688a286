/* wolfSSL as a small device has it: DTLS 1.2 with pre-shared keys and connection IDs, no more. */

/* MIN, which wolfSSL itself defines only where it has public keys. */
#include <sys/param.h>

#define WOLFSSL_DTLS
#define WOLFSSL_DTLS_CID

/* The suites TLS_PSK_*, which have no forward secrecy, are off unless asked for. */
#define WOLFSSL_STATIC_PSK
#define HAVE_AESGCM
#define HAVE_AESCCM
#define WOLFSSL_AES_DIRECT

#define HAVE_TLS_EXTENSIONS
#define HAVE_EXTENDED_MASTER
#define HAVE_ENCRYPT_THEN_MAC

/* One thread, no certificates. */
#define SINGLE_THREADED
#define NO_CERTS
#define NO_ASN
#define NO_RSA
#define NO_DH
#define NO_DSA
#define NO_OLD_TLS
#define NO_MD4
#define NO_MD5
#define NO_SHA
#define NO_DES3
#define NO_RC4
#define NO_PWDBASED
#define NO_SESSION_CACHE
#define WOLFSSL_NO_TLS13
#define NO_WOLFSSL_SERVER
