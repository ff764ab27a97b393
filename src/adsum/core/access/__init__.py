"""Access control: who proved to be whom, which scopes that gives, and what each action needs. Pure."""
