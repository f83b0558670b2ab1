"""Nouns and colours that training never shows together, so that composing can be told from remembering."""

from .scene import Scene

HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {("house", "purple"), ("tree", "white"), ("car", "green"), ("cat", "blue"), ("balloon", "yellow"), ("mushroom", "red")}
)


def has_held_out(scene: Scene) -> bool:
    """Whether a thing of the scene is one of the held-out compositions."""
    return any((thing.noun, thing.colour) in HELD_OUT for thing in scene.things)
