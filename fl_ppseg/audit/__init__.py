"""The leak audit: attacks run on what each adversary holds, and what each of them got.

    material   what an arm of a run leaves in whose hands      attacks   one file each
    plan       which attack is run by whom on what             scores    how near a guess came
    leaks      the findings as data                            page      the findings for people

An attack's knowledge is its signature: a function in `attacks` is given what its adversary holds
and nothing else, and that package can import no key (a tested rule).
"""
