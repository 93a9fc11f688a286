#!/usr/bin/env bash
# All tests, with everything they need: unit, model and whole-gateway tests, foreign clients, a
# foreign AWS, a short run of the fuzz targets. Says what it installs. Run it as often as you like.
#
#   ./test.sh            everything, bounded in time
#   KILLS=500 ./test.sh  more rounds of the kill -9 test (default 50)
set -euo pipefail
cd "$(dirname "$0")"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

missing=()
for client in notls openssl gnutls; do
    command -v "coap-client-$client" >/dev/null || missing+=(libcoap3-bin)
done
command -v openssl >/dev/null || missing+=(openssl)
# The tests of a broken disk let system calls fail with it.
command -v strace >/dev/null || missing+=(strace)
command -v cc >/dev/null || missing+=(gcc)
command -v g++ >/dev/null || missing+=(g++)
# A real MQTT broker with its tools; Debian puts the broker into /usr/sbin.
PATH="$PATH:/usr/sbin" command -v mosquitto >/dev/null || missing+=(mosquitto)
command -v mosquitto_sub >/dev/null || missing+=(mosquitto-clients)
# A foreign client of RADIUS accounting.
command -v radclient >/dev/null || missing+=(freeradius-utils)
command -v npm >/dev/null || missing+=(npm)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
    # A package may hold several of the programs.
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    echo "test.sh: installing Debian packages: ${missing[*]}"
    as_root apt-get update -qq
    as_root apt-get install -y -qq "${missing[@]}" >/dev/null
fi

cache="${XDG_CACHE_HOME:-$HOME/.cache}/simgate"
venv="$cache/venv"
modules='aiocoap, aiosmtpd, moto.server, moto.iot, shapely, standardwebhooks'
if ! "$venv/bin/python" -c "import $modules" 2>/dev/null; then
    echo "test.sh: installing the Python packages aiocoap, aiosmtpd, moto, shapely and standardwebhooks into $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet aiocoap==0.4.17 aiosmtpd==1.4.6 \
        'moto[server,iot,iotdata]==5.2.5' shapely==2.1.2 standardwebhooks==1.1.0
fi
node="$cache/node"
if [ ! -d "$node/node_modules/standardwebhooks" ]; then
    echo "test.sh: installing the JavaScript package standardwebhooks into $node"
    mkdir -p "$node"
    npm install --silent --no-audit --no-fund --prefix "$node" standardwebhooks@1.1.1
fi
nginx="$cache/nginx/usr/sbin/nginx"
if [ ! -x "$nginx" ]; then
    # Unpacked and not installed: an installed one would serve on port 80.
    echo "test.sh: unpacking the Debian package nginx into $cache/nginx"
    mkdir -p "$cache/nginx"
    (cd "$cache/nginx" && apt-get download -qq -o APT::Sandbox::User=root nginx &&
        dpkg -x nginx_*.deb . && rm nginx_*.deb)
fi
wolfssl="$cache/wolfssl-client"
for source in tests/interop/wolfssl/*; do
    [ "$wolfssl" -nt "$source" ] && continue
    echo "test.sh: making the DTLS client of wolfSSL in $cache"
    tests/interop/wolfssl/build.sh "$wolfssl"
    break
done
wakaama="$cache/wakaama-client"
for source in tests/interop/wakaama/*; do
    [ "$wakaama" -nt "$source" ] && continue
    echo "test.sh: making the LwM2M client of Wakaama in $cache"
    tests/interop/wakaama/build.sh "$wakaama"
    break
done
export SIMGATE_TEST_WOLFSSL="$wolfssl"
export SIMGATE_TEST_WAKAAMA="$wakaama"
export SIMGATE_TEST_PYTHON="$venv/bin/python"
export SIMGATE_TEST_NODE_MODULES="$node/node_modules"
export SIMGATE_TEST_NGINX="$nginx"
export SIMGATE_TEST_KILLS="${KILLS:-50}"

cargo test --workspace
fuzz/smoke.sh
