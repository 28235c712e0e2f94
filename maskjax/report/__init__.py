"""What a run looks like: sheets of pictures, maps, the table of results, and the HTML report."""

from maskjax.report.html import write_report
from maskjax.report.maps import draw_maps
from maskjax.report.masks import draw_masks, mask_pictures
from maskjax.report.pictures import reconstruction_sheet, save_sheet
from maskjax.report.reconstructions import SEEN, reconstruct
from maskjax.report.table import evaluation_table, format_table

__all__ = [
    "SEEN",
    "draw_maps",
    "draw_masks",
    "evaluation_table",
    "format_table",
    "mask_pictures",
    "reconstruct",
    "reconstruction_sheet",
    "save_sheet",
    "write_report",
]
