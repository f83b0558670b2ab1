"""Images, storage (local or remote, written atomically) and contact sheets."""
