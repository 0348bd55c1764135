"""A node's machine: `python -m clients.node`.

    <home>/node.yaml, node.pub   the node's settings, and the public key that is enrolled
    <home>/node/                 the SuperNode's: node.key, app.secret, flwr/
    <home>/app/                  the app's: app.secret, flwr/, state/ (log, ledger, pledges,
                                 weights)
    <home>/logs/                 of whoever runs `start`: supernode.log, app.log

Two programs run. Flower's SuperNode holds the node's key and talks to the coordinator; the app, as
another user who cannot read the key, trains on the encrypted shards. The app is this machine's own
fl_ppseg: the bundle that the coordinator ships is hashed, but never unpacked and never run.

The home belongs to whoever ran `init`, each of the other folders to one user. The users do not
trust each other's files: none of them enters another's folder, not even root, and no file changes
its owner after `init`.
"""
