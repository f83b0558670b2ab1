"""Files that systems and programs put beside those of people, and that are never meant."""

from pathlib import PurePath

FOLDERS = {"@eadir", "@recycle", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "system volume information", "lost+found"}
FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}


def is_helper(path: PurePath) -> bool:
    """Whether a path below a folder of people's is hidden (._NAME, .thumbnails), a thumbnail of a network disk, or in a bin."""
    return path.name.casefold() in FILES or any(part.startswith(".") or part.casefold() in FOLDERS for part in path.parts)
