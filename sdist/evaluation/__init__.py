"""From a set of edits and a folder of results to tables: one row a picture, and summaries with intervals."""
