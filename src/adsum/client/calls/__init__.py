"""The calls of a consumer: the channel to a service, its picks, and the retry loop of a call."""
