"""Names beside the points of a scatter plot, where there is room for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.text import Text
from matplotlib.transforms import Bbox

from workflow_scripts.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLACES = {
    (6, 3): ("left", "bottom"),
    (6, -3): ("left", "top"),
    (-6, 3): ("right", "bottom"),
    (-6, -3): ("right", "top"),
    (6, 14): ("left", "bottom"),
    (-6, 14): ("right", "bottom"),
    (6, -14): ("left", "top"),
    (-6, -14): ("right", "top"),
    (14, 26): ("left", "bottom"),
    (-14, 26): ("right", "bottom"),
    (14, -26): ("left", "top"),
    (-14, -26): ("right", "top"),
    (24, 40): ("left", "bottom"),
    (-24, 40): ("right", "bottom"),
    (24, -40): ("left", "top"),
    (-24, -40): ("right", "top"),
}
"""Where a name may stand: its offset from the point in points, and how it is aligned."""
NEAR = 10
"""Points of offset beyond which a line leads from the point to its name."""
LONGEST = 28
"""Characters of a name that are shown."""


@dataclass(frozen=True)
class NamedPoint:
    """A point in the units of the axes, and its name; an optional one only where there is room."""

    x: float
    y: float
    name: str
    optional: bool = False


def name_points(axes: Axes, named: Sequence[NamedPoint], all_points: Sequence[NamedPoint]) -> None:
    """Write the names of ``named`` beside their points, the first ones where there is most room.

    A name overlaps no other name and none of ``all_points`` where that is possible, and stays
    within the axes. The axes must have their final limits and size.
    """
    places = axes.transData.transform([(point.x, point.y) for point in all_points])
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in places]
    frame = axes.get_window_extent()
    for point in named:
        name = axes.annotate(
            shortened(point.name),
            (point.x, point.y),
            (0, 0),
            textcoords="offset points",
            fontsize=7.5,
            parse_math=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": style.GREY, "shrinkB": 2},
        )
        box, cost = _place(name, taken, frame)
        if point.optional and cost:
            name.remove()
        else:
            taken.append(box)


def _place(name: Text, taken: Sequence[Bbox], frame: Bbox) -> tuple[Bbox, float]:
    """Put a name where it overlaps least, and return its box and how bad the place is."""
    least, best = float("inf"), next(iter(PLACES))
    for offset in PLACES:
        box = _box(name, offset)
        crowded = sum(box.overlaps(other) for other in taken)
        outside = box.x0 < frame.x0 or box.y0 < frame.y0 or box.y1 > frame.y1
        cost = crowded + 2 * outside + (box.x1 > frame.x1)
        if cost < least:
            least, best = cost, offset
        if not cost:
            break
    return _box(name, best), least


def _box(name: Text, offset: tuple[int, int]) -> Bbox:
    """Put a name at an offset and return the box of its text, without the line."""
    side, level = PLACES[offset]
    name.set(position=offset, ha=side, va=level)
    name.get_window_extent()  # places it
    arrow = getattr(name, "arrow_patch", None)
    if arrow is not None:
        arrow.set_visible(abs(offset[1]) > NEAR)
    return Text.get_window_extent(name).padded(2)


def shortened(name: str) -> str:
    """Return an identifier as words, cut where it is too long for a figure."""
    words = style.readable(" ".join(name.split()))
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"
