"""The owner's vault: keys are made and images are encrypted here, and only here.

    <vault>/<client>/master.key          0600, made once from the OS
    <vault>/<client>/next.key            the next one, while a rotation is under way
    <vault>/<client>/destroyed.key       what is left of a key, while a retirement is under way
    <vault>/<client>/simulation.json     only if a simulation made the vault: `clear` may remove it
    <vault>/<client>/manifests/          salts of derived keys, never exported
    <vault>/<client>/retired/            retired master keys with their salts
    <vault>/<client>/handed_over.json    what was exported to node folders, and the names of its
    salts <vault>/<client>/drafts/<digest>/    a shard that is being encrypted
    <vault>/<client>/decrypting          where images are being decrypted to, meanwhile
    <vault>/<client>/shards/<digest>/    what the training node gets: encrypted views, labels
    <vault>/<client>/private/<digest>/   what a node that its owner trusts also gets: the patch
                                       embedding adapted to the client's key
    <vault>/.shared/                   the key of arms whose owners share it, with a salt of its own
                                       for arms that publish it

With fresh views (`data.fresh_views`) the shard holds held-out images alone, and each round has a
shard of its own, made while the round before trains, beside the nodes' policies or in the node
folder.

A shard is prepared once: `num_views` augmented views per image, each encrypted with its own key (or
the client's); held-out images are encrypted in the same way. A shard with equal settings and images
is reused; if several processes need it at once, the first one makes it. Folders are 0700.

`python -m clients.vault` is for an owner on a machine of its own: shards and private embeddings are
then exported to a folder for the training node, and everything else stays.
"""
