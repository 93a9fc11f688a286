#!/usr/bin/env bash
# Makes the foreign DTLS client: build.sh PROGRAM. Fetches wolfSSL (20 MB) once, compiles in seconds.
set -euo pipefail
program=$(realpath -m "$1")
cd "$(dirname "$0")"

host=$(rustc -vV | sed -n 's/^host: //p')
manifest=$(cargo metadata --quiet --locked --format-version 1 --filter-platform "$host" |
    python3 -c 'import json, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == "wolfssl-sys":
        print(package["manifest_path"])')
wolfssl="$(dirname "$manifest")/wolfssl-src"

mkdir -p "$(dirname "$program")"
# Warnings are for the authors of wolfSSL.
cc -O1 -w -DWOLFSSL_USER_SETTINGS -I. -I"$wolfssl" -o "$program.new" client.c \
    "$wolfssl"/src/{internal,ssl,tls,keys,wolfio,dtls}.c \
    "$wolfssl"/wolfcrypt/src/{aes,error,hash,hmac,kdf,logging,memory,random,sha256,wc_port}.c
mv "$program.new" "$program"
