"""Where in an image an edit belongs: clusters of features, and which of them the words of an instruction look at."""
