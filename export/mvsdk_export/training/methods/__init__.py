"""Training methods: losses and the steps that they drive."""
