"""The runs that reproduce the papers' claims, their stored results, and what the results show.

- rows: the table of all runs.
- store: the files in benchmarks/results/reproduce.
- results: the accuracies that the files hold.
- verdicts: when an accuracy counts as better than another.
- claims: the accuracies and the verdict of each claim.
- figures: the pictures.

benchmarks/reproduce.py trains the rows. benchmarks/results_page.py writes the page; its words are in results_page.md
and results_tables.md.
"""
