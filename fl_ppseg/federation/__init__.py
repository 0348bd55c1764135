"""What coordinator and nodes share: messages, the run folder, checkpoints, results and progress."""
