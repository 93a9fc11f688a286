#!/usr/bin/env bash
# Makes the foreign LwM2M client: build.sh PROGRAM. Fetches Eclipse Wakaama and tinydtls (1.1 MB, C sources in an npm package) once,
# compiles in seconds. Nothing of the package is run.
set -euo pipefail
program=$(realpath -m "$1")
cd "$(dirname "$0")"

cache="${XDG_CACHE_HOME:-$HOME/.cache}/simgate/node-red-contrib-lwm2m-2.12.3"
if [ ! -d "$cache/package" ]; then
    rm -rf "$cache.new"
    mkdir -p "$cache.new"
    (cd "$cache.new" && npm pack --silent --ignore-scripts node-red-contrib-lwm2m@2.12.3 >/dev/null)
    echo "dc1f2c78fbb03c96c6276f8fe491cb472b96da7f300322c8ff9346f63f9bfa44f6d4c3cdb48934131cd8f212b8f903edcfe1bad9ba56860c46156bd5434fe7f0  $cache.new/node-red-contrib-lwm2m-2.12.3.tgz" | sha512sum --check --quiet
    tar -xzf "$cache.new/node-red-contrib-lwm2m-2.12.3.tgz" -C "$cache.new"
    mv -T "$cache.new" "$cache"
fi
deps="$cache/package/deps/wakatiwai/deps"
wakaama="$deps/wakaama"
tinydtls="$wakaama/examples/shared/tinydtls"

# tinydtls 0.8.6 drops each record whose version is not DTLS 1.2; RFC 6347 (4.2.1) wants 1.0 in a HelloVerifyRequest. One comparison.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed 's/&& msg\[2\] == LOW(DTLS_VERSION))/\&\& (msg[2] == LOW(DTLS_VERSION) || msg[2] == 0xff))/' "$tinydtls/dtls.c" >"$work/dtls.c"
[ "$(diff "$tinydtls/dtls.c" "$work/dtls.c" | grep -c '^>')" = 1 ]

mkdir -p "$(dirname "$program")"
# Warnings are for the authors of Wakaama and tinydtls. The two wraps let client.c log each CoAP message in the clear.
cc -O1 -g -w -std=gnu11 \
    -DLWM2M_CLIENT_MODE -DLWM2M_BOOTSTRAP -DLWM2M_SUPPORT_JSON -DLWM2M_LITTLE_ENDIAN \
    -DWITH_TINYDTLS -DDTLSv12 -DWITH_SHA256 -DDTLS_PSK -DREST_MAX_CHUNK_SIZE="${REST_MAX_CHUNK_SIZE:-1024}" -DNDEBUG \
    -I"$wakaama/core" -I"$wakaama/core/er-coap-13" -I"$wakaama/examples/shared" -I"$tinydtls" -I"$deps/tinydtls" \
    -Wl,--wrap=lwm2m_handle_packet,--wrap=lwm2m_buffer_send \
    -o "$program.new" client.c \
    "$wakaama"/core/*.c "$wakaama"/core/er-coap-13/er-coap-13.c \
    "$wakaama"/examples/client/object_{security,server}.c \
    "$wakaama"/examples/shared/{platform,commandline,dtlsconnection}.c \
    "$work/dtls.c" "$tinydtls"/{ccm,crypto,dtls_debug,dtls_time,hmac,netq,peer,session}.c \
    "$tinydtls"/{sha2/sha2,aes/rijndael,ecc/ecc}.c -lm
mv "$program.new" "$program"
