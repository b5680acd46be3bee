"""Protocols, runs, tables and figures.

protocol        every choice behind a number that the model does not make, one frozen value
scoring         images -> stored scores, resumable at any image
measure, run    stored scores -> metrics with intervals -> rows (rows)
board, tables   rows and published figures (published) side by side, as text
figures, gallery, similarity   curves, figure 3, figure 1
subjects        methods made ready for measuring
studies, reproduce   the paper's tables as values, and making them from what is there
"""
