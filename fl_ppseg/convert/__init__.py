"""Conversion of downloaded data sets to Cityscapes layout: `python -m fl_ppseg.convert`."""
