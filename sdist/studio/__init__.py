"""A studio in the browser: `sdist app`. What a visitor has, what is made and when knows no browser; see docs/studio.md."""
