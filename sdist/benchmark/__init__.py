"""The same edits through a plain loop and through ours, timed."""
