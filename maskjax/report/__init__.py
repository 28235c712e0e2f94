"""What a run looks like: sheets of pictures, the table of results, and the HTML report."""

from maskjax.report.html import write_report
from maskjax.report.pictures import reconstruction_sheet, save_sheet
from maskjax.report.table import evaluation_table, format_table

__all__ = [
    "evaluation_table",
    "format_table",
    "reconstruction_sheet",
    "save_sheet",
    "write_report",
]
