"""Label maps of one's own images by a trained model: `python -m fl_ppseg.predict`.

command   options          running   images -> queries in batches -> files
listing   which images     outputs   files of an image, and the record of what made them
"""
