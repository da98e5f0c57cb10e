"""Look at data and models: checks with a model, comparison of runs, explanation of answers, choice of rows to label.

Everything here computes and returns plain data. `pages` and the command line show it.
"""
