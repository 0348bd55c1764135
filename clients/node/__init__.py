"""A node's machine: `python -m clients.node`.

    <home>/node.yaml             whose node it is
    <home>/node.key, node.pub    its identity towards the coordinator; the key 0600
    <home>/app.secret            lets the app take tasks from the SuperNode
    <home>/flwr/, logs/          Flower's files, logs
    <app home>/app.secret        the same, for the app's own user

Two programs run. Flower's SuperNode holds the node's key and talks to the coordinator; the app, as
another user who can open no key, trains on the encrypted shards. The app is this machine's own
fl_ppseg: what the coordinator ships is looked at, never unpacked and never run.
"""
