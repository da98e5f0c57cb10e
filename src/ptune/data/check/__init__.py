"""Find what is wrong with labelled text before a model is trained on it. Knows no model.

`read` brings a source into rows, each kind of finding has a function of rows, `run` calls them, `fix` repairs what
needs no judgement.
"""
