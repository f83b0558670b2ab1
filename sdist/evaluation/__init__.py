"""From a set of edits and a folder of results to tables: one row per image, and summaries with intervals."""
