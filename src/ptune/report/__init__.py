"""A run as a page: what it learned, what it gets wrong, and whether its probabilities can be trusted.

gather    a classifier and labelled rows → `Report`, plain data (with `measure` and `prompt`)
charts    numbers → SVG (with `confusion` and `canvas`)
page      `Report` → HTML (with charts.css and page.js)
pictures  `Report` → PNG, through matplotlib
writing   the files
"""
