"""Sources of examples, one file each: every one makes examples from rollouts alone."""
