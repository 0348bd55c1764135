"""Trees in Cityscapes layout out of what people download: `python -m fl_ppseg.convert`."""
