"""The `var-jax` command: one thin file a subcommand."""
