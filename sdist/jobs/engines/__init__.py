"""Who works the queues of sdist run off: this process, several on this machine, or the actors of a Ray cluster."""
