/* A device on the foreign library wolfSSL: it posts, has another UDP port from then on, and posts
 * again in the same session.
 *
 *   client ADDRESS PORT IDENTITY KEY SUITE CID
 *
 * KEY is text, SUITE has wolfSSL's name. CID is how many bytes the connection ID has that the
 * gateway shall write into its records; with 0 only the device writes one into its own. Prints the
 * suite, the lengths of both connection IDs, and the code of each answer.
 */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <wolfssl/ssl.h>

/* The gateway is on the same machine: what takes longer never ends. wolfSSL repeats a flight after
 * 1, 2, 4 and 8 seconds, so that a busy machine has some of these. */
#define PATIENCE_S 20

static const char *identity;
static const char *key;

static void fail(const char *what, WOLFSSL *ssl)
{
    fprintf(stderr, "%s: error %d\n", what, ssl ? wolfSSL_get_error(ssl, 0) : 0);
    exit(1);
}

static unsigned int psk(WOLFSSL *ssl, const char *hint, char *name, unsigned int name_max,
                        unsigned char *secret, unsigned int secret_max)
{
    size_t length = strlen(key);

    (void)ssl;
    (void)hint;
    if (strlen(identity) >= name_max || length > secret_max) {
        return 0;
    }
    strcpy(name, identity);
    memcpy(secret, key, length);
    return (unsigned int)length;
}

/* A socket with a port that it had not before, for the session to use from now on. */
static int speak_from_a_new_port(WOLFSSL *ssl, const struct sockaddr_in *to)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    if (fd < 0 || connect(fd, (const struct sockaddr *)to, sizeof *to) != 0
        || wolfSSL_set_dtls_fd_connected(ssl, fd) != WOLFSSL_SUCCESS) {
        fail("socket", NULL);
    }
    return fd;
}

/* A confirmable POST without options; prints the code of what answers it (RFC 7252, section 3). */
static void post(WOLFSSL *ssl, unsigned char message_id)
{
    unsigned char request[] = {0x40, 0x02, 0x00, message_id, 0xff, 'h', 'e', 'l', 'l', 'o'};
    unsigned char answer[256];
    int length;

    if (wolfSSL_write(ssl, request, sizeof request) != sizeof request) {
        fail("post", ssl);
    }
    length = wolfSSL_read(ssl, answer, sizeof answer);
    if (length < 4 || answer[3] != message_id) {
        fail("answer", ssl);
    }
    printf("post %d.%02d\n", answer[1] >> 5, answer[1] & 31);
}

/* Asks for connection IDs, with one of `length` bytes for what the device receives. */
static void ask_for_cid(WOLFSSL *ssl, unsigned int length)
{
    unsigned char own[] = {0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8};

    if (length > sizeof own || wolfSSL_dtls_cid_use(ssl) != WOLFSSL_SUCCESS
        || wolfSSL_dtls_cid_set(ssl, own, length) != WOLFSSL_SUCCESS) {
        fail("connection ID", ssl);
    }
}

static void print_session(WOLFSSL *ssl)
{
    unsigned int received = 0;
    unsigned int sent = 0;

    wolfSSL_dtls_cid_get_rx_size(ssl, &received);
    wolfSSL_dtls_cid_get_tx_size(ssl, &sent);
    printf("suite %s\n", wolfSSL_get_cipher_name(ssl));
    printf("cid of device %u of gateway %u\n", received, sent);
}

int main(int argc, char **argv)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    WOLFSSL_CTX *context;
    WOLFSSL *ssl;
    int first;

    if (argc != 7 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
        fprintf(stderr, "usage: client ADDRESS PORT IDENTITY KEY SUITE CID\n");
        return 2;
    }
    to.sin_port = htons((unsigned short)atoi(argv[2]));
    identity = argv[3];
    key = argv[4];
    alarm(PATIENCE_S);
    setvbuf(stdout, NULL, _IOLBF, 0);
    wolfSSL_Init();
    context = wolfSSL_CTX_new(wolfDTLSv1_2_client_method());
    if (context == NULL || wolfSSL_CTX_set_cipher_list(context, argv[5]) != WOLFSSL_SUCCESS) {
        fail("suite", NULL);
    }
    wolfSSL_CTX_set_psk_client_callback(context, psk);
    ssl = wolfSSL_new(context);
    if (ssl == NULL) {
        fail("session", NULL);
    }
    ask_for_cid(ssl, (unsigned int)atoi(argv[6]));
    first = speak_from_a_new_port(ssl, &to);
    if (wolfSSL_connect(ssl) != WOLFSSL_SUCCESS) {
        fail("handshake", ssl);
    }
    print_session(ssl);
    post(ssl, 1);
    /* The old one stays open, or the system may give the new one the same port. */
    speak_from_a_new_port(ssl, &to);
    post(ssl, 2);
    close(first);
    return 0;
}
