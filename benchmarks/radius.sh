#!/usr/bin/env bash
# RADIUS accounting: simgate, which answers what is durable, beside FreeRADIUS, which writes each packet to a
# detail file without waiting for the disk, or, durably as well, into SQLite with a write-ahead log; and beside
# simgate's own protocol that stores nothing, the limit of machine and generator. 5,000 different packets,
# 64 outstanding, from the same generator, in alternating rounds: first from our own, then from FreeRADIUS's
# radclient, which is the limit of its rounds itself.
#
#   benchmarks/radius.sh           three rounds
#   PACKETS=50000 benchmarks/radius.sh
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
PATH="$PATH:/usr/sbin"
if ! command -v freeradius >/dev/null || ! command -v radclient >/dev/null; then
    echo "radius.sh: installing the Debian packages freeradius and freeradius-utils"
    as_root apt-get install -y -qq freeradius freeradius-utils >/dev/null
    # The package starts a server of its own.
    as_root systemctl stop freeradius 2>/dev/null || true
fi
secret="k7Gq-2mfPz-x81Lk"
packets="${PACKETS:-5000}"
folder=$(mktemp -d)
chmod 755 "$folder"
pids=()
stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$folder"
}
trap stop EXIT

cargo build --release --quiet -p gateway -p radius --bin simgate --example load --example limit
target="${CARGO_TARGET_DIR:-target}/release"

mkdir -p "$folder/raddb" "$folder/detail"
stock=/etc/freeradius/3.0
python3 - "$stock/mods-config/sql/main/sqlite/schema.sql" "$folder/accounting.db" <<'PYTHON'
import sqlite3, sys

database = sqlite3.connect(sys.argv[2])
database.executescript(open(sys.argv[1]).read())
database.execute("PRAGMA journal_mode = WAL")
PYTHON
cat > "$folder/raddb/radiusd.conf" <<CONF
prefix = /usr
logdir = $folder
run_dir = $folder
libdir = /usr/lib/freeradius
pidfile = $folder/radiusd.pid
max_requests = 16384
security {
    allow_vulnerable_openssl = yes
}
log {
    destination = files
    file = $folder/radius.log
}
thread pool {
    start_servers = 4
    max_servers = 8
    min_spare_servers = 2
    max_spare_servers = 4
    max_requests_per_server = 0
}
client loopback {
    ipaddr = 127.0.0.1
    secret = $secret
}
modules {
    detail {
        filename = $folder/detail/detail
        permissions = 0600
        locking = no
    }
    sql {
        dialect = "sqlite"
        driver = "rlm_sql_sqlite"
        sqlite {
            filename = "$folder/accounting.db"
            busy_timeout = 5000
        }
        radius_db = "radius"
        acct_table1 = "radacct"
        acct_table2 = "radacct"
        postauth_table = "radpostauth"
        authcheck_table = "radcheck"
        groupcheck_table = "radgroupcheck"
        authreply_table = "radreply"
        groupreply_table = "radgroupreply"
        usergroup_table = "radusergroup"
        client_table = "nas"
        group_attribute = "SQL-Group"
        pool {
            start = 4
            max = 8
        }
        \$INCLUDE $stock/mods-config/sql/main/sqlite/queries.conf
    }
    expr {
    }
    always ok {
        rcode = ok
    }
}
policy {
    \$INCLUDE $stock/policy.d/accounting
}
server detail {
    listen {
        type = acct
        ipaddr = 127.0.0.1
        port = 21913
    }
    accounting {
        detail
        ok
    }
}
server durable {
    listen {
        type = acct
        ipaddr = 127.0.0.1
        port = 21914
    }
    preacct {
        acct_unique
    }
    accounting {
        sql
        ok
    }
}
CONF
freeradius -f -d "$folder/raddb" >/dev/null 2>&1 &
pids+=($!)

cat > "$folder/simgate.toml" <<CONF
[api]
listen = "127.0.0.1:28180"
[devices]
udp = []
coap = []
coaps = []
lwm2m = []
lwm2ms = []
[[network.radius]]
listen = "127.0.0.1:21813"
[[network.radius.clients]]
name = "loopback"
address = "127.0.0.1"
secret = "$secret"
CONF
"$target/simgate" serve --config "$folder/simgate.toml" --data "$folder/data" > "$folder/simgate.log" 2>&1 &
pids+=($!)
"$target/examples/limit" 127.0.0.1:21915 "$secret" &
pids+=($!)
for _ in $(seq 100); do
    grep -q '^ready' "$folder/simgate.log" && break
    sleep 0.1
done
sleep 1

# Other packets each time: simgate would know those of the round before.
stanzas() {
    awk -v round="$1" -v packets="$packets" -v now="$(date +%s)" 'BEGIN {
        for (number = 0; number < packets; number++) {
            imsi = sprintf("90140510%07d", round * 100000 + number)
            printf "Acct-Status-Type = Start\nAcct-Session-Id = \"%d-%d-%d\"\n", now, round, number
            printf "NAS-Identifier = \"pgw-1\"\nEvent-Timestamp = %d\n", now
            printf "Framed-IP-Address = 10.%d.%d.%d\n", round, number / 250 % 250, number % 250 + 1
            printf "Calling-Station-Id = \"4917%010d\"\nCalled-Station-Id = \"iot.example\"\n", number
            printf "3GPP-IMSI = \"%s\"\n3GPP-IMEISV = \"3520990017614823\"\n\n", imsi
        }
    }' > "$folder/packets"
}
# Its start and its reading of the file are counted, for both servers alike.
radclient_round() {
    local begun ended answered
    begun=$(date +%s%N)
    answered=$(radclient -q -s -p 64 -f "$folder/packets" "127.0.0.1:$1" acct "$secret" 2>&1 |
        awk '/Accepted|Passed filter/ { print $NF; exit }')
    ended=$(date +%s%N)
    echo "$packets packets, $answered answered: $((packets * 1000000000 / (ended - begun)))/s"
}

for round in 1 2 3; do
    echo -n "round $round: FreeRADIUS, detail file: "
    "$target/examples/load" 127.0.0.1:21913 "$secret" "$packets" 64
    echo -n "round $round: simgate, durable:         "
    "$target/examples/load" 127.0.0.1:21813 "$secret" "$packets" 64
    echo -n "round $round: storing nothing:          "
    "$target/examples/load" 127.0.0.1:21915 "$secret" "$packets" 64
    echo -n "round $round: FreeRADIUS, durable:      "
    "$target/examples/load" 127.0.0.1:21914 "$secret" 1000 64
    sleep 1
done
for round in 1 2 3; do
    stanzas "$((round * 2))"
    echo -n "radclient $round: FreeRADIUS, detail file: "
    radclient_round 21913
    echo -n "radclient $round: simgate, durable:         "
    radclient_round 21813
    sleep 1
done
