"""Secure aggregation: a sum of updates of which nobody sees a single one.

After Bonawitz et al. 2017 ("Practical secure aggregation for privacy-preserving machine learning").
Both sides of the federation use this room; it knows neither images, ciphers nor Flower.

ring          updates as whole numbers modulo 2^32, and the mean of their sum
masks         keystreams that cancel in the sum
shares        a secret in parts, any `threshold` of which restore it
roster        the signed keys of the clients of a round
node_secret   what a node derives all of its keys from
node          the steps of a round on a node that its keys take part in
confirmation  the survivors' signatures of whose updates are added
running_sum   the coordinator's sum, and how it loses its masks

    step        coordinator -> node                  node -> coordinator
    advertise                                        two public keys, signed
    share       the roster                           shares of its two secrets, sealed for each peer
    train       the weights, who sent shares         the update, quantised and masked
    confirm     who sent an update                   its signature of that
    unmask      these signatures, sealed shares      one share of one secret of each peer

The mask of a pair of nodes comes from a key that the two agree on and from the hash of the weights
that each of them received: where they were given different weights, their masks do not cancel.
"""
