"""The findings of an audit as report.html and as a table in the terminal.

matrix     arm x adversary: the best attack of each, baselines, share of the key
frontier   what an arm leaks against what it keeps of plain's mIoU
panels     the same street plain, encrypted, and as each adversary reconstructs it
terminal   the matrix as a table for the console and for logs
html       report.html with all of it
"""
