"""Says of each point whether it lies in each polygon, as shapely sees it.

Reads one JSON object {"polygons": [rings, ...], "points": [[x, y], ...]} and prints for each polygon the
places of the points that it contains and that are not nearer to its border than 1e-5 degrees, and those that
are too near to be judged.
"""
import json
import sys

import shapely

case = json.load(sys.stdin)
points = shapely.points(case["points"])
judged = []
for rings in case["polygons"]:
    polygon = shapely.Polygon(rings[0], rings[1:])
    inside = shapely.contains(polygon, points)
    near = shapely.distance(polygon.boundary, points) < 1e-5
    judged.append({
        "valid": bool(polygon.is_valid),
        "inside": [i for i, yes in enumerate(inside) if yes and not near[i]],
        "near": [i for i, yes in enumerate(near) if yes],
    })
json.dump(judged, sys.stdout)
