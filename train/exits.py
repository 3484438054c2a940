"""What a run's exit code tells the scheduler: whether to start it again."""

DONE = 0
FAILED = 1  # a bad config, checkpoint or cluster: starting again will not help
STOPPED = 75  # asked to stop (SIGTERM, SIGUSR1): saved, start again (EX_TEMPFAIL of sysexits.h)
STUCK = 76  # a deadline passed, or other processes were lost: start again from the last save
DIVERGED = 77  # too many bad updates in a row: saved, a person should look
