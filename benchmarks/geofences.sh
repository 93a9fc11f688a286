#!/usr/bin/env bash
# Positions against 100,000 geofences on one core, ours and shapely's STRtree on the same data.
#
#   benchmarks/geofences.sh        three rounds, alternating
set -euo pipefail
cd "$(dirname "$0")/.."

venv="${XDG_CACHE_HOME:-$HOME/.cache}/simgate/venv"
if ! "$venv/bin/python" -c 'import shapely' 2>/dev/null; then
    echo "geofences.sh: installing the Python package shapely into $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet shapely==2.1.2
fi
data=$(mktemp)
trap 'rm -f "$data"' EXIT
cargo build --release --quiet -p geofence --example rate
rate="${CARGO_TARGET_DIR:-target}/release/examples/rate"
for round in 1 2 3; do
    echo "round $round: simgate"
    taskset -c 0 "$rate" "$data"
    echo "round $round: shapely"
    taskset -c 0 "$venv/bin/python" - "$data" <<'PYTHON'
import json, sys, time
import shapely
case = json.load(open(sys.argv[1]))
polygons = shapely.polygons([shapely.linearrings(ring) for ring in case["polygons"]])
shapely.prepare(polygons)
points = shapely.points(case["points"])
begun = time.perf_counter()
tree = shapely.STRtree(polygons)
tree.query(points[:1])
print(f"{len(polygons)} fences indexed in {time.perf_counter() - begun:.2f}s")
begun = time.perf_counter()
found = tree.query(points, predicate="intersects")
took = time.perf_counter() - begun
print(f"{len(points) / took:.0f} positions/s into {found.shape[1]} fences, all at once")
some = points[:20_000]
begun = time.perf_counter()
for point in some:
    tree.query(point, predicate="intersects")
print(f"{len(some) / (time.perf_counter() - begun):.0f} positions/s, one by one")
PYTHON
done
