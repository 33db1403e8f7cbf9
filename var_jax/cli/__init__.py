"""The `var-jax` command: one thin file per subcommand."""
