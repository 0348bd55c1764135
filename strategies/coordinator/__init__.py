"""The coordinator's machine: `python -m strategies.coordinator`.

    <home>/coordinator.yaml         the settings of `init`
    <home>/ca.crt                   for the nodes; ca.key if the authority was made here
    <home>/server.crt, server.key   the certificate that nodes see
    <home>/link-ca.*, link.*        those of the SuperLink, for this machine's loopback
    <home>/proxy.cfg, .pem, .lua    of HAProxy, the only service that other machines reach
    <home>/gate.sock                where HAProxy asks which node sent a request
    <home>/nodes/<client>.pub         the enrolled clients
    <home>/revoked/<client>~*.pub     revoked keys
    <home>/state.db, flwr/, logs/   Flower's state, apps and logs

Flower's SuperLink serves nodes, commands and apps on one port, and commands need no login. So it
listens on the loopback only; a proxy lets through what a node needs and nothing else.
"""
