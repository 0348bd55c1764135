"""The rounds of a run.

discovery, registry         which nodes are connected, and which client each of them is
draw                        whose turn it is in a round
federated, local_only       Flower's loop: the tasks of a round, aggregation, results, checkpoints
exchange                    tasks to messages, and replies checked one at a time
tasks                       the table of a round: sent, waiting for its node, done, failed
monitor                     grace periods, lost replies, retries and the quorum
round_log                   the results of a round, and what was rejected
update_warnings             lines on unusual updates
reported_counts             what a client reports of its images, held constant over a run
"""
