/*
 * A foreign LwM2M device for tests: Eclipse Wakaama (and tinydtls) behind a small command line.
 *
 *   wakaama_client --server HOST:PORT [--bootstrap HOST:PORT] --bind 127.x.y.z --endpoint NAME --lifetime N
 *                  [--psk-identity TEXT --psk HEX] [--binding U|UQ] [--interval SECONDS] [--blob BYTES] [--seconds N]
 *
 * With --bootstrap only the bootstrap server is known at first, and --server may be left out.
 * Prints one JSON line per event, taken from the CoAP messages themselves. Obeys lines on standard input:
 *   set PATH VALUE | changed PATH | update | update full | deregister | register | bootstrap | send | quit
 * Ends by itself after --seconds (120 at most), and at the end of standard input.
 *
 * All that speaks LwM2M, CoAP and DTLS is Wakaama's; this file has the objects, the socket and the log.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dtlsconnection.h"
#include "internals.h"
#include "liblwm2m.h"

/* Wakaama's example objects 0 and 1. */
extern lwm2m_object_t *get_security_object(int serverId, const char *serverUri, char *bsPskId, char *psk,
                                           uint16_t pskLen, bool isBootstrap);
extern lwm2m_object_t *get_server_object(int serverId, const char *binding, int lifetime, bool storing);
extern dtls_context_t *get_dtls_context(dtls_connection_t *connList);
extern dtls_context_t *dtlsContext;

extern void __real_lwm2m_handle_packet(lwm2m_context_t *, uint8_t *, int, void *);
extern uint8_t __real_lwm2m_buffer_send(void *, uint8_t *, size_t, void *);

static lwm2m_context_t *lwm2m;
static lwm2m_object_t *security_object;
static dtls_connection_t *connections;
static int udp = -1;
static bool deregister_then_idle;
static int refusals;

/* ---------------------------------------------------------------- the log */

static void string_out(const char *text, size_t length)
{
    putchar('"');
    for (size_t i = 0; i < length; i++) {
        unsigned char c = text[i];
        if (c == '"' || c == '\\') printf("\\%c", c);
        else if (c < 0x20 || c >= 0x7f) printf("\\u%04x", c);
        else putchar(c);
    }
    putchar('"');
}

static void event(const char *name, const char *format, ...)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    printf("{\"event\":\"%s\",\"at\":%lld.%03ld", name, (long long)now.tv_sec, now.tv_nsec / 1000000);
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("}\n");
    fflush(stdout);
}

/* ------------------------------------------------------- the CoAP messages */

typedef struct {
    uint8_t type, code, token_length;
    uint16_t id;
    uint8_t token[8];
    char path[128], query[256], location[128];
    int accept, format, observe; /* -1: absent */
    long block1, block2;
    size_t payload;
    const uint8_t *payload_at;
} coap_view;

static long number(const uint8_t *at, size_t length)
{
    long value = 0;
    for (size_t i = 0; i < length; i++) value = value << 8 | at[i];
    return value;
}

static void append(char *to, size_t size, char before, const uint8_t *at, size_t length)
{
    size_t used = strlen(to);
    if (used + length + 2 > size) return;
    if (before) to[used++] = before;
    memcpy(to + used, at, length);
    to[used + length] = 0;
}

static bool view(coap_view *v, const uint8_t *at, size_t length)
{
    memset(v, 0, sizeof *v);
    v->accept = v->format = v->observe = -1;
    v->block1 = v->block2 = -1;
    if (length < 4 || at[0] >> 6 != 1 || (at[0] & 15) > 8) return false;
    v->type = at[0] >> 4 & 3;
    v->token_length = at[0] & 15;
    v->code = at[1];
    v->id = at[2] << 8 | at[3];
    size_t i = 4 + v->token_length;
    if (i > length) return false;
    memcpy(v->token, at + 4, v->token_length);
    unsigned option = 0;
    while (i < length && at[i] != 0xff) {
        unsigned parts[2] = {at[i] >> 4, at[i] & 15};
        i++;
        for (int p = 0; p < 2; p++) {
            if (parts[p] == 13 && i < length) parts[p] = 13 + at[i++];
            else if (parts[p] == 14 && i + 1 < length) { parts[p] = 269 + (at[i] << 8 | at[i + 1]); i += 2; }
        }
        option += parts[0];
        if (i + parts[1] > length) return false;
        const uint8_t *value = at + i;
        size_t n = parts[1];
        switch (option) {
        case 6: v->observe = number(value, n); break;
        case 8: append(v->location, sizeof v->location, '/', value, n); break;
        case 11: append(v->path, sizeof v->path, '/', value, n); break;
        case 12: v->format = number(value, n); break;
        case 15: append(v->query, sizeof v->query, v->query[0] ? '&' : 0, value, n); break;
        case 17: v->accept = number(value, n); break;
        case 23: v->block2 = number(value, n); break;
        case 27: v->block1 = number(value, n); break;
        }
        i += n;
    }
    if (i < length) { v->payload_at = at + i + 1; v->payload = length - i - 1; }
    return true;
}

static void extras(char *to, size_t size, const coap_view *v)
{
    int n = 0;
    to[0] = 0;
#define ADD(...) n += snprintf(to + n, n < (int)size ? size - n : 0, __VA_ARGS__)
    if (v->accept >= 0) ADD(",\"accept\":%d", v->accept);
    if (v->format >= 0) ADD(",\"format\":%d", v->format);
    if (v->observe >= 0) ADD(",\"observe\":%d", v->observe);
    if (v->query[0]) ADD(",\"query\":\"%s\"", v->query);
    if (v->location[0]) ADD(",\"location\":\"%s\"", v->location);
    if (v->block1 >= 0) ADD(",\"block1\":\"%ld/%ld/%d\"", v->block1 >> 4, v->block1 >> 3 & 1, 16 << (v->block1 & 7));
    if (v->block2 >= 0) ADD(",\"block2\":\"%ld/%ld/%d\"", v->block2 >> 4, v->block2 >> 3 & 1, 16 << (v->block2 & 7));
    if (v->payload) ADD(",\"payload\":%zu", v->payload);
#undef ADD
}

/* What was asked of us and by us, newest first; the answers are matched by token and message ID. */
#define KEPT 64
static struct asked { bool used, done, ours; coap_view v; void *session; char name[24]; } asked[KEPT];
static struct observed { bool used; uint8_t token[8], token_length; char path[128]; } observed[KEPT];
static int asked_next, observed_next;

static struct asked *ask(bool ours, const coap_view *v, void *session, const char *name)
{
    struct asked *a = &asked[asked_next++ % KEPT];
    *a = (struct asked){.used = true, .ours = ours, .v = *v, .session = session};
    snprintf(a->name, sizeof a->name, "%s", name);
    return a;
}

static struct asked *find(bool ours, const coap_view *v)
{
    for (int i = 0; i < KEPT; i++) {
        struct asked *a = &asked[(asked_next + 2 * KEPT - 1 - i) % KEPT];
        if (!a->used || a->ours != ours) continue;
        bool token = a->v.token_length == v->token_length && !memcmp(a->v.token, v->token, v->token_length);
        if (token && (v->token_length > 0 || a->v.id == v->id)) return a;
    }
    return NULL;
}

static const char *what(const coap_view *v, void *session)
{
    bool bootstrap = utils_findBootstrapServer(lwm2m, session) != NULL && utils_findServer(lwm2m, session) == NULL;
    int depth = 0;
    for (const char *p = v->path; *p; p++) depth += *p == '/';
    switch (v->code) {
    case 1:
        if (v->observe == 0) return "observe";
        if (v->observe == 1) return "cancel_observe";
        return v->accept == 40 ? "discover" : bootstrap ? "bootstrap_read" : "read";
    case 2:
        if (!strcmp(v->path, "/bs")) return "bootstrap_finish";
        return depth >= 3 ? "execute" : depth == 1 ? "create" : "write";
    case 3:
        if (bootstrap) return "bootstrap_write";
        return v->query[0] && !v->payload ? "write_attributes" : "write";
    case 4: return bootstrap ? "bootstrap_delete" : "delete";
    }
    return "request";
}

/* What the peer sent, in the clear. */
void __wrap_lwm2m_handle_packet(lwm2m_context_t *context, uint8_t *buffer, int length, void *session)
{
    coap_view v;
    char more[512];
    if (view(&v, buffer, length)) {
        if (v.code >= 1 && v.code < 32) {
            ask(false, &v, session, what(&v, session));
        } else if (v.code >= 32) {
            struct asked *a = find(true, &v);
            extras(more, sizeof more, &v);
            if (a && !a->done) {
                a->done = true;
                const char *name = a->name;
                if (v.code >> 5 == 2) {
                    if (!strcmp(name, "register")) name = "registered";
                    else if (!strcmp(name, "update")) name = "updated";
                    else if (!strcmp(name, "deregister")) name = "deregistered";
                    else if (!strcmp(name, "bootstrap_request")) name = "bootstrap_accepted";
                } else {
                    if (!strcmp(name, "register")) refusals++;
                    name = "refused";
                }
                event(name, ",\"code\":\"%d.%02d\",\"path\":\"%s\"%s", v.code >> 5, v.code & 31, a->v.path, more);
            }
        } else if (v.type == 3) {
            event("reset", ",\"id\":%d", v.id);
        }
    }
    __real_lwm2m_handle_packet(context, buffer, length, session);
}

/* What Wakaama sends, in the clear. */
uint8_t __wrap_lwm2m_buffer_send(void *session, uint8_t *buffer, size_t length, void *user)
{
    coap_view v;
    char more[512], asked_more[512];
    if (view(&v, buffer, length)) {
        extras(more, sizeof more, &v);
        if (v.code >= 1 && v.code < 32) {
            const char *name = !strcmp(v.path, "/bs") ? "bootstrap_request"
                             : v.code == 4 ? "deregister" : !strcmp(v.path, "/rd") ? "register" : "update";
            struct asked *a = find(true, &v);
            bool again = a && a->v.id == v.id;
            if (!again) ask(true, &v, session, name);
            if (strcmp(name, "register")) {
                event(name, ",\"path\":\"%s\"%s%s", v.path, more, again ? ",\"again\":true" : "");
            } else {
                printf("{\"event\":\"register\",\"path\":\"%s\"%s%s,\"links\":", v.path, more, again ? ",\"again\":true" : "");
                string_out((const char *)v.payload_at, v.payload);
                printf("}\n");
                fflush(stdout);
            }
        } else if (v.code >= 64) {
            struct asked *a = find(false, &v);
            if (a && !a->done) {
                a->done = true;
                extras(asked_more, sizeof asked_more, &a->v);
                if (!strcmp(a->name, "observe") && v.code >> 5 == 2) {
                    struct observed *o = &observed[observed_next++ % KEPT];
                    o->used = true;
                    memcpy(o->token, v.token, 8);
                    o->token_length = v.token_length;
                    snprintf(o->path, sizeof o->path, "%s", a->v.path);
                }
                event(a->name, ",\"path\":\"%s\"%s,\"code\":\"%d.%02d\",\"answer\":{%s}",
                      a->v.path[0] ? a->v.path : "/", asked_more, v.code >> 5, v.code & 31, more[0] ? more + 1 : "");
            } else if (v.observe >= 0) {
                const char *path = "?";
                for (int i = 0; i < KEPT; i++)
                    if (observed[i].used && observed[i].token_length == v.token_length
                        && !memcmp(observed[i].token, v.token, v.token_length)) path = observed[i].path;
                event("notify", ",\"path\":\"%s\",\"type\":\"%s\"%s", path, v.type == 0 ? "CON" : "NON", more);
            }
        }
    }
    dtls_connection_t *connection = session;
    if (connection && !connection->dtlsSession) {
        /* dtlsconnection.c takes the length that was sent in the clear for an error. */
        ssize_t sent = sendto(connection->sock, buffer, length, 0, (struct sockaddr *)&connection->addr, connection->addrLen);
        return sent == (ssize_t)length ? COAP_NO_ERROR : COAP_500_INTERNAL_SERVER_ERROR;
    }
    return __real_lwm2m_buffer_send(session, buffer, length, user);
}

/* -------------------------------------------------------------- the objects */

enum kind { TEXT, INTEGER, REAL, FLAG, BYTES, ACTION };
typedef struct {
    uint16_t object, resource;
    enum kind kind;
    bool writable;
    char text[128];
    int64_t integer;
    double real;
    uint8_t *bytes;
    size_t length;
} resource_t;

static resource_t resources[] = {
    {3, 0, TEXT, .text = "Eclipse Wakaama"},
    {3, 1, TEXT, .text = "simgate interop"},
    {3, 2, TEXT, .text = ""},
    {3, 3, TEXT, .text = "1.0"},
    {3, 4, ACTION},
    {3, 9, INTEGER, .integer = 87},
    {3, 13, INTEGER, .writable = true, .integer = 1700000000},
    {3, 14, TEXT, .writable = true, .text = "+00:00"},
    {3, 16, TEXT, .text = "U"},
    {3303, 5601, REAL, .real = 20.0},
    {3303, 5602, REAL, .real = 20.0},
    {3303, 5605, ACTION},
    {3303, 5700, REAL, .real = 20.0},
    {3303, 5701, TEXT, .text = "Cel"},
    {3311, 5822, ACTION},
    {3311, 5850, FLAG, .writable = true},
    {3311, 5851, INTEGER, .writable = true, .integer = 100},
    {19, 0, BYTES, .writable = true},
};
#define RESOURCES (sizeof resources / sizeof *resources)
static const uint16_t objects[] = {3, 19, 3303, 3311};

static resource_t *resource(uint16_t object, uint16_t id)
{
    for (size_t i = 0; i < RESOURCES; i++)
        if (resources[i].object == object && resources[i].resource == id) return &resources[i];
    return NULL;
}

static void encode(const resource_t *r, lwm2m_data_t *data)
{
    switch (r->kind) {
    case TEXT: lwm2m_data_encode_string(r->text, data); break;
    case INTEGER: lwm2m_data_encode_int(r->integer, data); break;
    case REAL: lwm2m_data_encode_float(r->real, data); break;
    case FLAG: lwm2m_data_encode_bool(r->integer, data); break;
    case BYTES: lwm2m_data_encode_opaque(r->bytes, r->length, data); break;
    case ACTION: break;
    }
}

static bool decode(resource_t *r, const lwm2m_data_t *data)
{
    switch (r->kind) {
    case TEXT:
        if (data->type != LWM2M_TYPE_STRING && data->type != LWM2M_TYPE_OPAQUE) return false;
        if (data->value.asBuffer.length >= sizeof r->text) return false;
        memcpy(r->text, data->value.asBuffer.buffer, data->value.asBuffer.length);
        r->text[data->value.asBuffer.length] = 0;
        return true;
    case INTEGER: return lwm2m_data_decode_int(data, &r->integer) == 1;
    case REAL: return lwm2m_data_decode_float(data, &r->real) == 1;
    case FLAG: {
        bool flag;
        if (lwm2m_data_decode_bool(data, &flag) != 1) return false;
        r->integer = flag;
        return true;
    }
    case BYTES:
        if (data->type != LWM2M_TYPE_STRING && data->type != LWM2M_TYPE_OPAQUE) return false;
        free(r->bytes);
        r->length = data->value.asBuffer.length;
        r->bytes = malloc(r->length + 1);
        memcpy(r->bytes, data->value.asBuffer.buffer, r->length);
        return true;
    case ACTION: return false;
    }
    return false;
}

static void show(const char *name, const resource_t *r)
{
    printf("{\"event\":\"%s\",\"path\":\"/%d/0/%d\",\"value\":", name, r->object, r->resource);
    switch (r->kind) {
    case TEXT: string_out(r->text, strlen(r->text)); break;
    case INTEGER: printf("%" PRId64, r->integer); break;
    case REAL: printf("%.10g", r->real); break;
    case FLAG: printf(r->integer ? "true" : "false"); break;
    case BYTES: printf("{\"bytes\":%zu}", r->length); break;
    case ACTION: printf("null"); break;
    }
    printf("}\n");
    fflush(stdout);
}

static uint8_t list(bool with_actions, int *count, lwm2m_data_t **data, lwm2m_object_t *object)
{
    int n = 0;
    for (size_t i = 0; i < RESOURCES; i++)
        n += resources[i].object == object->objID && (with_actions || resources[i].kind != ACTION);
    *data = lwm2m_data_new(n);
    if (!*data) return COAP_500_INTERNAL_SERVER_ERROR;
    *count = n;
    n = 0;
    for (size_t i = 0; i < RESOURCES; i++)
        if (resources[i].object == object->objID && (with_actions || resources[i].kind != ACTION))
            (*data)[n++].id = resources[i].resource;
    return COAP_205_CONTENT;
}

static uint8_t on_read(uint16_t instance, int *count, lwm2m_data_t **data, lwm2m_object_t *object)
{
    if (instance != 0) return COAP_404_NOT_FOUND;
    if (*count == 0) {
        uint8_t result = list(false, count, data, object);
        if (result != COAP_205_CONTENT) return result;
    }
    for (int i = 0; i < *count; i++) {
        resource_t *r = resource(object->objID, (*data)[i].id);
        if (!r) return COAP_404_NOT_FOUND;
        if (r->kind == ACTION) return COAP_405_METHOD_NOT_ALLOWED;
        encode(r, *data + i);
    }
    return COAP_205_CONTENT;
}

static uint8_t on_discover(uint16_t instance, int *count, lwm2m_data_t **data, lwm2m_object_t *object)
{
    if (instance != 0) return COAP_404_NOT_FOUND;
    if (*count == 0) return list(true, count, data, object);
    for (int i = 0; i < *count; i++)
        if (!resource(object->objID, (*data)[i].id)) return COAP_404_NOT_FOUND;
    return COAP_205_CONTENT;
}

static uint8_t on_write(uint16_t instance, int count, lwm2m_data_t *data, lwm2m_object_t *object)
{
    if (instance != 0) return COAP_404_NOT_FOUND;
    for (int i = 0; i < count; i++) {
        resource_t *r = resource(object->objID, data[i].id);
        if (!r) return COAP_404_NOT_FOUND;
        if (!r->writable) return COAP_405_METHOD_NOT_ALLOWED;
        if (!decode(r, data + i)) return COAP_400_BAD_REQUEST;
        show("written", r);
    }
    return COAP_204_CHANGED;
}

static uint8_t on_execute(uint16_t instance, uint16_t id, uint8_t *buffer, int length, lwm2m_object_t *object)
{
    resource_t *r = resource(object->objID, id);
    if (instance != 0 || !r) return COAP_404_NOT_FOUND;
    if (r->kind != ACTION) return COAP_405_METHOD_NOT_ALLOWED;
    printf("{\"event\":\"executed\",\"path\":\"/%d/0/%d\",\"arguments\":", object->objID, id);
    string_out((char *)buffer, length > 0 ? length : 0);
    printf("}\n");
    fflush(stdout);
    return COAP_204_CHANGED;
}

static lwm2m_object_t *make_object(uint16_t id)
{
    lwm2m_object_t *object = calloc(1, sizeof *object);
    object->objID = id;
    object->instanceList = calloc(1, sizeof *object->instanceList);
    object->readFunc = on_read;
    object->discoverFunc = on_discover;
    object->writeFunc = on_write;
    object->executeFunc = on_execute;
    /* No deleteFunc: Wakaama then answers a bootstrap server's DELETE / with 2.02 and keeps the object. */
    return object;
}

/* ------------------------------------------------------------ the connections */

void *lwm2m_connect_server(uint16_t instance, void *user)
{
    dtls_connection_t *made = connection_create(connections, udp, security_object, instance, lwm2m, AF_INET);
    if (made) connections = made;
    return made;
}

void lwm2m_close_connection(void *session, void *user)
{
    dtls_connection_t *closed = session;
    /* dtls_close would wait for the server's goodbye, which finds no connection any more: where bootstrap server and server share a
     * port, tinydtls would never shake hands again. */
    dtls_peer_t *peer = closed->dtlsSession ? dtls_get_peer(closed->dtlsContext, closed->dtlsSession) : NULL;
    if (peer) dtls_reset_peer(closed->dtlsContext, peer);
    for (dtls_connection_t **at = &connections; *at; at = &(*at)->next)
        if (*at == closed) { *at = closed->next; break; }
    if (dtlsContext) dtlsContext->app = connections;
    free(closed);
}

/* -------------------------------------------------------------------- main */

static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static const char *state_name(void)
{
    static const char *names[] = {"initial", "bootstrap_required", "bootstrapping", "register_required", "registering", "ready"};
    return lwm2m->state <= STATE_READY ? names[lwm2m->state] : "?";
}

static void set(char *path, char *value, bool tell_only)
{
    lwm2m_uri_t uri;
    if (!lwm2m_stringToUri(path, strlen(path), &uri)) { event("error", ",\"reason\":\"path\""); return; }
    if (!tell_only) {
        resource_t *r = resource(uri.objectId, uri.resourceId);
        if (!r || r->kind == ACTION) { event("error", ",\"reason\":\"no such resource\""); return; }
        switch (r->kind) {
        case TEXT: snprintf(r->text, sizeof r->text, "%s", value); break;
        case INTEGER: r->integer = atoll(value); break;
        case REAL: r->real = atof(value); break;
        case FLAG: r->integer = !strcmp(value, "true") || !strcmp(value, "1"); break;
        case BYTES:
            r->length = atoll(value);
            r->bytes = realloc(r->bytes, r->length + 1);
            for (size_t i = 0; i < r->length; i++) r->bytes[i] = i;
            break;
        case ACTION: break;
        }
        show("set", r);
    }
    lwm2m_resource_value_changed(lwm2m, &uri);
}

static bool command(char *line)
{
    char *word = strtok(line, " \t\r\n");
    char *first = strtok(NULL, " \t\r\n");
    char *rest = strtok(NULL, "\r\n");
    if (!word) return true;
    if (!strcmp(word, "quit")) return false;
    if (!strcmp(word, "set") && first && rest) set(first, rest, false);
    else if (!strcmp(word, "changed") && first) set(first, NULL, true);
    else if (!strcmp(word, "update")) lwm2m_update_registration(lwm2m, 0, first != NULL);
    else if (!strcmp(word, "register")) { deregister_then_idle = false; lwm2m->state = STATE_INITIAL; }
    else if (!strcmp(word, "deregister")) { deregister_then_idle = true; lwm2m_deregister(lwm2m); }
    else if (!strcmp(word, "bootstrap")) {
        lwm2m->state = STATE_BOOTSTRAP_REQUIRED;
    } else if (!strcmp(word, "send")) event("error", ",\"reason\":\"this Wakaama speaks LwM2M 1.0: no Send\"");
    else event("error", ",\"reason\":\"command\"");
    return true;
}

int main(int argc, char **argv)
{
    const char *server = NULL, *bootstrap = NULL, *bind_to = NULL, *endpoint = NULL, *binding = "U";
    char *identity = NULL, *psk = NULL;
    int lifetime = 300, seconds = 120, interval = 0;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 >= argc) die("%s needs a value", argv[i]);
        char *value = argv[i + 1];
        if (!strcmp(argv[i], "--server")) server = value;
        else if (!strcmp(argv[i], "--bootstrap")) bootstrap = value;
        else if (!strcmp(argv[i], "--bind")) bind_to = value;
        else if (!strcmp(argv[i], "--endpoint")) endpoint = value;
        else if (!strcmp(argv[i], "--lifetime")) lifetime = atoi(value);
        else if (!strcmp(argv[i], "--binding")) binding = value;
        else if (!strcmp(argv[i], "--psk-identity")) identity = value;
        else if (!strcmp(argv[i], "--psk")) psk = value;
        else if (!strcmp(argv[i], "--interval")) interval = atoi(value);
        else if (!strcmp(argv[i], "--seconds")) seconds = atoi(value);
        else if (!strcmp(argv[i], "--blob")) resource(19, 0)->length = atoi(value);
        else die("unknown option %s", argv[i]);
    }
    if ((!server && !bootstrap) || !bind_to || !endpoint) die("--server or --bootstrap, --bind and --endpoint are needed");
    if (strlen(binding) > 3) die("--binding");
    if (seconds > 120 || seconds < 1) seconds = 120;
    resource_t *blob = resource(19, 0);
    blob->bytes = malloc(blob->length + 1);
    for (size_t i = 0; i < blob->length; i++) blob->bytes[i] = i;
    snprintf(resource(3, 2)->text, 128, "%s", endpoint);
    snprintf(resource(3, 16)->text, 128, "%s", binding);

    uint8_t key[64];
    size_t key_length = 0;
    for (; psk && psk[2 * key_length] && key_length < sizeof key; key_length++) {
        unsigned byte;
        if (sscanf(psk + 2 * key_length, "%2x", &byte) != 1) die("--psk is not hexadecimal");
        key[key_length] = byte;
    }

    struct sockaddr_in local = {.sin_family = AF_INET};
    if (inet_pton(AF_INET, bind_to, &local.sin_addr) != 1) die("--bind takes an IPv4 address");
    udp = socket(AF_INET, SOCK_DGRAM, 0);
    if (udp < 0 || bind(udp, (struct sockaddr *)&local, sizeof local) < 0) die("bind %s: %s", bind_to, strerror(errno));
    socklen_t local_length = sizeof local;
    getsockname(udp, (struct sockaddr *)&local, &local_length);

    char uri[256];
    snprintf(uri, sizeof uri, "%s://%s", psk ? "coaps" : "coap", bootstrap ? bootstrap : server);
    const int short_server_id = 1;
    /* A key that is not NULL, even an empty one, would mean DTLS. */
    security_object = get_security_object(short_server_id, uri, identity, psk ? (char *)key : NULL, key_length, bootstrap != NULL);
    lwm2m_data_t *hold_off = lwm2m_data_new(1);
    hold_off->id = LWM2M_SECURITY_HOLD_OFF_ID;
    lwm2m_data_encode_int(0, hold_off);
    if (security_object->writeFunc(0, 1, hold_off, security_object) != COAP_204_CHANGED) die("hold-off");
    lwm2m_data_free(1, hold_off);

    lwm2m_object_t *all[2 + sizeof objects / sizeof *objects];
    all[0] = security_object;
    all[1] = get_server_object(short_server_id, binding, lifetime, false);
    if (bootstrap) { /* a factory-fresh device knows no server */
        all[1]->deleteFunc(0, all[1]);
    }
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++) all[2 + i] = make_object(objects[i]);

    lwm2m = lwm2m_init(NULL);
    if (!lwm2m || lwm2m_configure(lwm2m, endpoint, NULL, NULL, sizeof all / sizeof *all, all) != 0) die("lwm2m_configure");
    lwm2m->nextMID = (uint16_t)(time(NULL) * 7919 + getpid());
    event("started", ",\"client\":\"Eclipse Wakaama (LwM2M 1.0)\",\"endpoint\":\"%s\",\"local\":\"%s:%d\",\"uri\":\"%s\"",
          endpoint, bind_to, ntohs(local.sin_port), uri);

    alarm(seconds + 10); /* whatever happens */
    time_t start = time(NULL), next_change = start + interval;
    lwm2m_client_state_t state = lwm2m->state;
    char line[4096];
    size_t used = 0;
    bool go = true;
    while (go && time(NULL) - start < seconds) {
        time_t timeout = 1;
        int result = 0;
        if (!deregister_then_idle) result = lwm2m_step(lwm2m, &timeout);
        else transaction_step(lwm2m, lwm2m_gettime(), &timeout); /* lwm2m_step would register or bootstrap again */
        if (state != lwm2m->state) {
            state = lwm2m->state;
            event("state", ",\"state\":\"%s\"", state_name());
        }
        if (refusals >= 3) { /* Wakaama begins again at once, with no pause */
            event("failed", ",\"reason\":\"registration refused 3 times\"");
            break;
        }
        if (result != 0) {
            event("failed", ",\"step\":\"%d.%02d\",\"state\":\"%s\"", result >> 5, result & 31, state_name());
            break;
        }
        if (interval && time(NULL) >= next_change) {
            char path[] = "/3303/0/5700", value[32];
            next_change = time(NULL) + interval;
            snprintf(value, sizeof value, "%.2f", resource(3303, 5700)->real + 0.25);
            set(path, value, false);
        }
        struct pollfd fds[2] = {{.fd = udp, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
        if (poll(fds, 2, timeout <= 0 ? 10 : 200) <= 0) continue;
        if (fds[0].revents) {
            uint8_t buffer[65536];
            struct sockaddr_storage from;
            socklen_t from_length = sizeof from;
            ssize_t n = recvfrom(udp, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &from_length);
            if (n > 0) {
                dtls_connection_t *connection = connection_find(connections, &from, from_length);
                if (connection) connection_handle_packet(connection, buffer, n);
                else event("ignored", ",\"bytes\":%zd", n);
            }
        }
        if (fds[1].revents) {
            ssize_t n = read(0, line + used, sizeof line - 1 - used);
            if (n <= 0) break;
            used += n;
            line[used] = 0;
            char *end;
            while (go && (end = strchr(line, '\n'))) {
                *end = 0;
                go = command(line);
                used -= end + 1 - line;
                memmove(line, end + 1, used + 1);
            }
        }
    }
    if (!deregister_then_idle) { /* leave the server, and wait a second for its answer */
        lwm2m_deregister(lwm2m);
        time_t until = time(NULL) + 2;
        while (lwm2m->transactionList && time(NULL) < until) {
            struct pollfd fd = {.fd = udp, .events = POLLIN};
            if (poll(&fd, 1, 200) <= 0) continue;
            uint8_t buffer[65536];
            struct sockaddr_storage from;
            socklen_t from_length = sizeof from;
            ssize_t n = recvfrom(udp, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &from_length);
            dtls_connection_t *connection = n > 0 ? connection_find(connections, &from, from_length) : NULL;
            if (connection) connection_handle_packet(connection, buffer, n);
        }
    }
    event("exit", ",\"seconds\":%lld", (long long)(time(NULL) - start));
    return 0;
}
