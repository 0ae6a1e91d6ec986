"""What a study found: a table, a CSV file and pictures, of the runs that are there."""

import study_pictures
import study_table
from study_results import read_all, write_csv


def write(grid, folder, states):
    """Everything, into the study's folder."""
    rows, found = read_all(grid, folder, states)
    folder.mkdir(parents=True, exist_ok=True)
    study_table.write(grid, rows, folder / "table.md")
    write_csv(rows, folder / "results.csv")
    study_pictures.draw(grid, found, folder)
    print((folder / "table.md").read_text(encoding="utf-8"), end="")
