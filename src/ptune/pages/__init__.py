"""Show results as HTML: one file for each, which needs no network."""
