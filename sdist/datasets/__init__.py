"""Sets of edit pairs in their published formats, joined by key."""
