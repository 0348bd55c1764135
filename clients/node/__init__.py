"""A node's machine: `python -m clients.node`.

    <home>/node.yaml, node.pub   whose node it is, and what the coordinator knows it by
    <home>/node/                 the SuperNode's: node.key, app.secret, flwr/
    <home>/app/                  the app's: app.secret, flwr/, state/ (log, ledger, own embedding)
    <home>/logs/                 of whoever starts: supernode.log, app.log

Two programs run. Flower's SuperNode holds the node's key and talks to the coordinator; the app, as
another user who can open no key, trains on the encrypted shards. The app is this machine's own
fl_ppseg: what the coordinator ships is hashed, never unpacked and never run.

The home belongs to whoever ran `init`, each of the other folders to one user. What a user writes is
hostile to the others: none of them enters another's folder, root included, and nothing changes
hands after `init`.
"""
