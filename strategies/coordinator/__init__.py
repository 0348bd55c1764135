"""The coordinator's machine: `python -m strategies.coordinator`.

    <home>/coordinator.yaml         what `init` was told
    <home>/ca.crt                   what nodes are given; ca.key where the authority is one's own
    <home>/server.crt, server.key   the certificate that nodes see
    <home>/link-ca.*, link.*        the SuperLink's own, for this machine's loopback
    <home>/proxy.cfg, .pem, .lua    of HAProxy, the only thing that other machines reach
    <home>/gate.sock                where HAProxy asks whose a request is
    <home>/nodes/<city>.pub         the enrolled cities
    <home>/revoked/<city>~*.pub     keys that are admitted no longer
    <home>/state.db, flwr/, logs/   Flower's state, apps and logs

Flower's SuperLink serves nodes, commands and apps on one port, and asks commands for no login. So
it listens on the loopback alone; a proxy lets through what a node needs and nothing else.
"""
