"""A studio in the browser: `sdist app`. Everything but page.py, server.py and looks.py is plain Python that knows no browser."""
