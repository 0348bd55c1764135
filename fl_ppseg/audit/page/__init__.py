"""The findings of an audit for people: in the terminal, as report.html, and as plain words.

matrix     arm x adversary: the best attack of each, what it is compared with, the key
words      what an adversary holds, and what it sees of your street
frontier   what an arm gives away against what it keeps of plain's mIoU
panels     the same street as it is, encrypted, and as each adversary restores it
terminal   the matrix as a table of the console and of logs
html       report.html with all of it
"""
