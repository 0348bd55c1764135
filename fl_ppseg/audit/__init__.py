"""The leak audit: attacks on what each adversary holds, and their scores.

    material   what each adversary holds of an arm     attacks   one file each
    plan       the attacks of each adversary           judging   scores of the reconstructions
    labels     attacks on label maps                   page      the findings as a page and a table

The arguments of a function in `attacks` are all that its adversary holds; that package can import
no key (a tested rule).
"""
