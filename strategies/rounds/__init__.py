"""The rounds of a run.

discovery, registry         which nodes are connected, and which city each of them is
city_strategy, local_only   Flower's loop: the tasks of a round, aggregation, results, checkpoints
collector                   the replies of a round: quorum and retries
exchange                    tasks to messages, and replies checked one at a time
reconnection, liveness      nodes that disconnect during a round, and replies that were lost
round_log                   the tasks that are outstanding, and the results of a round
reported_counts             what a city reports of its images, held constant over a run
"""
