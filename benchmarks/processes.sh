# For the benchmarks with a receiver (simulator/examples/receiver.rs): sourced, not run.

# Waits until a line of a file matches; shows the file where none does within 20 s.
wait_for() {
    local _
    for _ in $(seq 200); do
        grep -q "$1" "$2" 2>/dev/null && return
        sleep 0.1
    done
    cat "$2" >&2
    return 1
}

# Asks the receiver with this process id and output file, with --ledger, for figures of its paths,
# each written as PATH.NAME; 0 where the path had no request. Its latencies begin anew with this.
ask_receiver() {
    local lines
    lines="$(grep -c '^{' "$2" || true)"
    kill -USR1 "$1"
    until [ "$(grep -c '^{' "$2")" -gt "$lines" ]; do sleep 0.01; done
    grep '^{' "$2" | tail -1 | python3 -c 'import json, sys
paths = json.load(sys.stdin)["paths"]
figures = (figure.rsplit(".", 1) for figure in sys.argv[1:])
print(*(paths.get(path, {}).get(name, 0) for path, name in figures))' "${@:3}"
}
